//! A transaction of the source that is too large to be kept: its parts are read from the archive
//! again, once it is committed, and written bit by bit.
//!
//! The position stays at the entry before the commit, and says how many of the parts are in the
//! target. So what crashes in between goes on there.

use tokio::time::Instant;

use super::{Following, HURRIED_BYTES, failed};
use crate::clock;
use crate::engine::sync::write::Written;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{ClusterTime, OplogPosition};
use crate::oplog::apply::gather::{Large, Stop};
use crate::oplog::chain::spans::Spans;
use crate::oplog::chain::{ChainRange, ChainReader};
use crate::sink::synced::Move;

/// A frame of entries, and from where on they are not gathered yet.
type Rest = (Vec<u8>, usize);

impl Following<'_> {
    /// Writes such a transaction, at whose commit gathering stopped. False if the target went back.
    pub(super) async fn large(&mut self) -> Result<bool> {
        if !self.settle().await? {
            return Ok(false);
        }
        let is_on = self.write_large().await;
        self.writer.held().let_go();
        is_on
    }

    async fn write_large(&mut self) -> Result<bool> {
        let Some(arrived) = self.gatherer.as_mut().ok_or_else(failed)?.arrived() else { return Ok(true) };
        self.parts.status.change(|s| s.moment = false);
        self.follow_catalog(&arrived).await?;
        let commit = arrived.position;
        let Some(mut large) = arrived.into_large() else { return Ok(true) };
        if let Some(part) = self.within.take() {
            large.go_on_after(part);
        }
        if !self.write_parts(large, commit.time).await? {
            return Ok(false);
        }
        let gatherer = self.gatherer.as_mut().ok_or_else(failed)?;
        let _of_no_part = gatherer.take();
        let step = Move::On { from: self.at.time, to: commit, open_from: gatherer.open_from() };
        self.writer.move_on(&step).await?;
        self.at = commit;
        let moment = self.parts.transactions;
        self.parts.status.change(|s| {
            s.at = Some(commit.time);
            s.moment = moment;
        });
        self.tell();
        Ok(true)
    }

    /// Writes what was gathered, and moves the position to the last entry.
    async fn settle(&mut self) -> Result<bool> {
        match self.gatherer.as_ref().ok_or_else(failed)?.gathered().to {
            Some(to) if to.time > self.at.time => self.flush_all().await,
            _ => Ok(true),
        }
    }

    /// Reads the parts that are not in the target yet, and writes them. False if the target went
    /// back.
    async fn write_parts(&mut self, mut large: Large, commit: ClusterTime) -> Result<bool> {
        let Some(left) = large.left() else { return Ok(true) };
        let mut from = large.last();
        let mut reader = self.read_again(left).await?;
        while let Some(frame) = self.parts.cx.unless_cancelled(reader.next()).await? {
            let mut rest = Some((frame, 0));
            while let Some(frame) = rest.take() {
                if self.parts.cx.cancel.is_cancelled() {
                    return Err(Error::interrupted());
                }
                let stop;
                (large, stop, rest) = self.gather_parts(large, frame).await?;
                if stop == Stop::Full && !self.write_some(&mut from, commit).await? {
                    return Ok(false);
                }
            }
        }
        large.prove_taken()?;
        self.write_some(&mut from, commit).await
    }

    /// Reads the archive again, from one time to another.
    async fn read_again(&self, (from, to): (ClusterTime, ClusterTime)) -> Result<ChainReader> {
        let cx = self.parts.cx;
        let found = cx.unless_cancelled(Spans::of(self.parts.place, &cx.cpu)).await?;
        let found = found.ok_or_else(|| Error::new(ErrorKind::NotFound, "the archive of the source's oplog is gone"))?;
        let from = OplogPosition { time: from, term: None, digest: None };
        Ok(ChainRange::of(self.parts.place, &found, from, (to, to))?.reader(&cx.cpu))
    }

    /// Gathers parts of a frame from an offset on, on the pool for such work. Gives back what was
    /// not gathered yet.
    async fn gather_parts(&mut self, mut large: Large, (frame, begin): Rest) -> Result<(Large, Stop, Option<Rest>)> {
        let mut gatherer = self.gatherer.take().ok_or_else(failed)?;
        // The target is no moment meanwhile, so it may be written in the faster way.
        gatherer.hurry(true);
        let most = HURRIED_BYTES.min(self.most);
        let gathered = self.parts.cx.cpu.run(move || {
            let mut at = begin;
            let stop = gatherer.gather_parts(&mut large, &frame, &mut at, most)?;
            let rest = (at < frame.len()).then_some((frame, at));
            Ok((gatherer, large, stop, rest))
        });
        let (gatherer, large, stop, rest) = gathered.await?;
        self.gatherer = Some(gatherer);
        Ok((large, stop, rest))
    }

    /// Writes the parts that were gathered, after the part `from`, which is moved. False if the
    /// target went back.
    async fn write_some(&mut self, from: &mut Option<ClusterTime>, commit: ClusterTime) -> Result<bool> {
        let gatherer = self.gatherer.as_mut().ok_or_else(failed)?;
        let gathered = gatherer.take();
        let Some(to) = gathered.to.filter(|_| !gathered.is_empty()) else { return Ok(true) };
        let (before, begun) = (self.writer.operations(), Instant::now());
        let step = Move::Within { at: self.at.time, from: *from, to: to.time, commit };
        if self.writer.write(gathered, gatherer, step).await? == Written::WentBack {
            return Ok(false);
        }
        *from = Some(to.time);
        let operations = self.writer.operations() - before;
        self.parts.status.change(|s| {
            s.operations += operations;
            s.batches += 1;
            s.batch_time += begun.elapsed();
            s.written = Some(clock::now());
        });
        Ok(true)
    }
}
