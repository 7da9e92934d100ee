//! Gzip on all cores: independent members, each with about a MiB of input, are made concurrently
//! and written in order. A gzip file may have any number of members (RFC 1952); every reader treats
//! them as one.

use std::collections::VecDeque;

use async_compression::Level;
use async_compression::tokio::write::GzipEncoder;
use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio_util::task::AbortOnDropHandle;

use crate::context::cpu::{self, CpuPool};
use crate::error::{Error, ErrorKind, Result};

/// The input of one member.
pub(super) const MEMBER: usize = 1024 * 1024;

/// The most members that are being made or waiting to be written.
pub(super) const MEMBERS: usize = 8;

/// The levels, from fast to small.
pub const LEVELS: std::ops::RangeInclusive<u32> = 1..=9;

/// The usual level.
pub const DEFAULT_LEVEL: u32 = 6;

/// Compresses bytes into members.
#[derive(Debug)]
pub(super) struct Gzip {
    level: u32,
    cpu: CpuPool,
    pending: Vec<u8>,
    members: VecDeque<AbortOnDropHandle<Result<Vec<u8>>>>,
    most: usize,
    empty: bool,
}

impl Gzip {
    pub(super) fn new(level: u32, cpu: &CpuPool) -> Self {
        let most = (2 * cpu::cores()).clamp(2, MEMBERS);
        Self { level, cpu: cpu.clone(), pending: Vec::new(), members: VecDeque::new(), most, empty: true }
    }

    /// Takes as many of the bytes as fit into the present member, and returns the rest.
    pub(super) fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(bytes.len().min(MEMBER - self.pending.len()));
        if self.pending.capacity() == 0 {
            // A small buffer stays small.
            self.pending.reserve_exact(if rest.is_empty() { taken.len() } else { MEMBER });
        }
        self.pending.extend_from_slice(taken);
        if self.pending.len() == MEMBER {
            self.make();
        }
        rest
    }

    /// Ends the input. If there was none, it makes one empty member.
    pub(super) fn end(&mut self) {
        if self.empty || !self.pending.is_empty() {
            self.make();
        }
    }

    /// The next member. If `all` is false, only when there are too many; if true, until none is
    /// left.
    pub(super) async fn next(&mut self, all: bool) -> Result<Option<Bytes>> {
        if !all && self.members.len() < self.most {
            return Ok(None);
        }
        let Some(member) = self.members.pop_front() else { return Ok(None) };
        let member = member.await.map_err(|e| Error::new(ErrorKind::Internal, "the compression crashed").cause(e))?;
        member.map(|member| Some(member.into()))
    }

    fn make(&mut self) {
        self.empty = false;
        let (cpu, level, input) = (self.cpu.clone(), self.level, std::mem::take(&mut self.pending));
        let work = tokio::spawn(async move { cpu.run(move || member(&input, level)).await });
        self.members.push_back(AbortOnDropHandle::new(work));
    }
}

/// Compresses these bytes into one member.
pub(super) fn member(bytes: &[u8], level: u32) -> Result<Vec<u8>> {
    let level = Level::Precise(level.cast_signed());
    let mut encoder = GzipEncoder::with_quality(Vec::with_capacity(bytes.len() / 4 + 64), level);
    // This writes to memory, so it never waits.
    let made = futures::executor::block_on(async {
        encoder.write_all(bytes).await?;
        encoder.shutdown().await
    });
    made.map_err(|e| Error::new(ErrorKind::Internal, format!("cannot compress: {e}")).cause(e))?;
    let mut member = encoder.into_inner();
    member.shrink_to_fit();
    Ok(member)
}

#[cfg(test)]
mod tests {
    use async_compression::tokio::bufread::GzipDecoder;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    async fn compressed(pieces: &[&[u8]]) -> Vec<u8> {
        let mut gzip = Gzip::new(6, &CpuPool::of_this_machine());
        let mut out = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                rest = gzip.fill(rest);
                while let Some(member) = gzip.next(false).await.unwrap() {
                    out.extend(member);
                }
            }
            assert!(gzip.members.len() < gzip.most);
        }
        gzip.end();
        while let Some(member) = gzip.next(true).await.unwrap() {
            out.extend(member);
        }
        out
    }

    async fn decompressed(bytes: &[u8]) -> Vec<u8> {
        let mut decoder = GzipDecoder::new(bytes);
        decoder.multiple_members(true);
        let mut out = Vec::new();
        decoder.read_to_end(&mut out).await.unwrap();
        out
    }

    #[tokio::test]
    async fn members_come_in_order_whatever_the_pieces() {
        let all: Vec<u8> = (0..12_500_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
        let pieces: Vec<&[u8]> = all.chunks(777_777).collect();
        let out = compressed(&pieces).await;
        assert!(out.len() < all.len());
        assert!(decompressed(&out).await == all, "other bytes");
    }

    #[tokio::test]
    async fn nothing_is_a_member_and_a_whole_number_of_members_has_no_empty_one() {
        let nothing = compressed(&[]).await;
        assert!(nothing.starts_with(&[0x1F, 0x8B]));
        assert_eq!(decompressed(&nothing).await, b"");
        let two = compressed(&[&vec![7; 2 * MEMBER]]).await;
        let once = member(&vec![7; MEMBER], 6).unwrap();
        assert_eq!(two, [once.clone(), once].concat());
    }
}
