//! All kinds of documents are restored bit for bit, and no input makes a reader exceed its limits.

use super::bytes::put_varint;
use super::{Decoder, Encoder, MAGIC};
use crate::error::ErrorKind;
use crate::format::frame::Compression;

/// Reproducible random numbers; `style` shapes the values of a frame.
struct Random {
    state: u64,
    style: u64,
}

impl Random {
    fn of(seed: u64) -> Self {
        Self { state: seed, style: 0 }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound.max(1)
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

const KINDS: [u8; 24] = [1, 1, 2, 2, 2, 3, 4, 5, 6, 7, 7, 8, 9, 0xa, 0xb, 0xd, 0xe, 0x10, 0x10, 0x11, 0x12, 0x13, 0xff, 0x7f];

fn document(elements: &[u8]) -> Vec<u8> {
    let length = (elements.len() + 5) as u32;
    [&length.to_le_bytes(), elements, &[0]].concat()
}

fn key(random: &mut Random) -> Vec<u8> {
    const NAMES: [&str; 10] = ["_id", "name", "at", "a", "b", "c", "geo", "tags", "averylongfieldnameindeed", "items"];
    match random.below(12) {
        0 => Vec::new(),
        1 => b"\xff\xfe bad utf8".to_vec(),
        2 => (0..random.below(40)).map(|_| 1 + random.below(255) as u8).collect(),
        3 => b"0".to_vec(),
        4 => random.below(12).to_string().into_bytes(),
        5 => vec![b'k'; 13 + random.below(5) as usize],
        _ => random.one(&NAMES).as_bytes().to_vec(),
    }
}

fn text(random: &mut Random) -> Vec<u8> {
    if random.once_in(3000) {
        // A NUL inside and none at the end.
        return vec![4, 0, 0, 0, b'a', 0, b'b', b'c'];
    }
    let style = random.style >> 4 & 7;
    let choice = if style < 4 && !random.once_in(5000) { 20 + style } else { random.below(8) };
    let mut text = match choice {
        20 if random.once_in(400) => b"00000000_0000-4000-a000-000000000000".to_vec(),
        20 => {
            let (a, b, c) = (random.next() as u32, random.next() as u16, random.next() >> 16);
            format!("{a:08x}-{b:04x}-4abc-8def-{c:012x}").into_bytes()
        }
        21 => format!("{:016x}{:08x}", random.next(), random.next() as u32).into_bytes(),
        22 => format!("value-{}", random.below(40)).into_bytes(),
        23 => format!("long common beginning of {}", random.below(300)).into_bytes(),
        0 => Vec::new(),
        1 => b"with\0nul".to_vec(),
        2 => vec![0xff; random.below(20) as usize],
        3 => format!("{:016x}{:016x}", random.next(), random.next()).into_bytes(),
        4 => (0..random.below(300)).map(|_| b'a' + random.below(26) as u8).collect(),
        5 => vec![b'x'; 28 + random.below(8) as usize],
        _ => random.one(&["new", "paid", "shipped", "done"]).as_bytes().to_vec(),
    };
    text.push(0);
    [&(text.len() as u32).to_le_bytes(), text.as_slice()].concat()
}

fn double(random: &mut Random) -> f64 {
    let choice = match random.style & 7 {
        0 => 3,
        1 => *[3, 6, 0].get(random.below(60) as usize).unwrap_or(&3),
        2 => 6,
        3 => 4,
        4 => *[0, 1, 5].get(random.below(300) as usize).unwrap_or(&6),
        _ => random.below(7),
    };
    match choice {
        0 => -0.0,
        1 => f64::from_bits(0x7ff8_0000_0000_0001),
        2 => f64::INFINITY,
        3 => random.below(100_000) as f64 / 100.,
        4 => f64::from_bits(random.next()),
        5 => 5e-324,
        _ => random.below(10) as f64,
    }
}

fn value(random: &mut Random, kind: u8, depth: u32) -> Vec<u8> {
    match kind {
        1 => double(random).to_le_bytes().to_vec(),
        2 | 0xd | 0xe => text(random),
        3 => container(random, depth + 1, false),
        4 => container(random, depth + 1, true),
        5 => {
            let length = *random.one(&[0usize, 16, 16, 3, 200]);
            let subtype = *random.one(&[0, 2, 4, 128]);
            let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            [&(length as u32).to_le_bytes(), [subtype].as_slice(), &bytes].concat()
        }
        7 => {
            let seconds = 1_700_000_000 + random.below(1000) as u32;
            let (process, counter) = (random.below(3), random.below(1 << 24) as u32);
            [&seconds.to_be_bytes(), &process.to_le_bytes()[..5], &counter.to_be_bytes()[1..]].concat()
        }
        8 => vec![*random.one(&[0, 1, 1, 7])],
        9 if random.style >> 7 & 1 == 0 => {
            random.style += 1 << 20;
            ((random.style >> 20) * 1000 + 1_700_000_000_000 + random.below(500) / 499).to_le_bytes().to_vec()
        }
        9 => (random.below(1 << 40) / 1000 * *random.one(&[1000, 1])).to_le_bytes().to_vec(),
        0xb if random.once_in(3) => vec![0, 0],
        0xb => b"a.*b\0imsx\0".to_vec(),
        0xc => [text(random), vec![1; 12]].concat(),
        0xf => {
            let parts = [text(random), container(random, depth + 1, false)].concat();
            [&(parts.len() as u32 + 4).to_le_bytes(), parts.as_slice()].concat()
        }
        0x10 => {
            let number = *random.one(&[random.state as u32, random.state as u32 % 100, 7]);
            random.next();
            number.to_le_bytes().to_vec()
        }
        0x11 | 0x12 => match random.below(3) {
            0 => random.next(),
            1 => random.below(5000) * 1000,
            _ => random.below(3),
        }
        .to_le_bytes()
        .to_vec(),
        0x13 => (0..16).map(|_| random.below(3) as u8).collect(),
        _ => Vec::new(),
    }
}

fn container(random: &mut Random, depth: u32, array: bool) -> Vec<u8> {
    let mut elements = Vec::new();
    let count = if depth > 4 { 0 } else { random.below(7) };
    let usual = *random.one(&KINDS);
    let odd = random.once_in(60);
    for i in 0..count {
        let mut kind = if array && !random.once_in(5) { usual } else { *random.one(&KINDS) };
        if random.once_in(400) {
            kind = *random.one(&[0xc, 0xf, 0x33, 0x55, 0x40]);
        }
        elements.push(kind);
        elements.extend(if array && !odd { i.to_string().into_bytes() } else { key(random) });
        elements.push(0);
        elements.extend(value(random, kind, depth));
    }
    document(&elements)
}

/// Documents of a few shapes, as in collections.
fn shaped(random: &mut Random, count: u64) -> Vec<u8> {
    let shapes: Vec<Vec<(u8, Vec<u8>)>> = (0..1 + random.below(4))
        .map(|_| (0..1 + random.below(12)).map(|_| (*random.one(&KINDS), key(random))).collect())
        .collect();
    let mut all = Vec::new();
    for _ in 0..count {
        let mut elements = Vec::new();
        for (kind, name) in random.one(&shapes) {
            if !random.once_in(6) {
                elements.push(*kind);
                elements.extend(name);
                elements.push(0);
                elements.extend(value(random, *kind, 2));
            }
        }
        all.extend(document(&elements));
    }
    all
}

/// Long arrays, and objects with unique keys.
fn long(random: &mut Random) -> Vec<u8> {
    let mut all = Vec::new();
    for _ in 0..1 + random.below(4) {
        let (count, kind, numbered) = (random.below(2500), *random.one(&[1u8, 0x10, 0xa, 7, 2]), !random.once_in(3));
        let mut elements = Vec::new();
        for i in 0..count {
            elements.push(kind);
            elements.extend(if numbered { i.to_string() } else { format!("{:x}", random.next()) }.into_bytes());
            elements.push(0);
            elements.extend(value(random, kind, 3));
        }
        let inner = document(&elements);
        all.extend(document(&[&[*random.one(&[3u8, 4, 3]), b'v', 0], inner.as_slice()].concat()));
    }
    all
}

fn frame(random: &mut Random) -> Vec<u8> {
    random.style = random.next() & 0xf_ffff;
    let mut all = match random.below(10) {
        0 => (0..random.below(60)).flat_map(|_| container(random, 0, false)).collect(),
        1 => (0..random.below(4000)).map(|_| random.next() as u8).collect(),
        2 => {
            let digit = b'0' + random.below(10) as u8;
            let small = [document(&[]), document(&[0x10, digit, 0, 1, 2, 3, 4])];
            (0..random.below(200)).flat_map(|_| random.one(&small).clone()).collect()
        }
        3 => long(random),
        4 => {
            let mut nested = document(&[]);
            for _ in 0..random.below(300) {
                nested = document(&[&[*random.one(&[3u8, 3, 3, 4]), b'0', 0], nested.as_slice()].concat());
            }
            nested.repeat(1 + random.below(3) as usize)
        }
        _ => {
            let count = random.below(600);
            shaped(random, count)
        }
    };
    // Any bytes are restored.
    if random.once_in(3) {
        for _ in 0..1 + random.below(6) {
            let at = random.below(all.len() as u64) as usize;
            match random.below(4) {
                _ if all.is_empty() => {}
                0 => all[at] = random.next() as u8,
                1 => all[at] ^= 1 << random.below(8),
                2 => drop(all.remove(at)),
                _ => all.insert(at, *random.one(&[0, 1, 5, 0x33, 0xff])),
            }
        }
    }
    all
}

/// The number of rounds: by default as many as fit into a few seconds.
fn rounds(usual: u64) -> u64 {
    std::env::var("COLUMNS_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(usual)
}

fn seed() -> u64 {
    std::env::var("COLUMNS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x1234_5678_9abc_def1)
}

fn both() -> (Encoder, Decoder) {
    (Encoder::new(Compression::of(1)).unwrap(), Decoder::new().unwrap())
}

#[test]
fn any_bytes_come_back() {
    let mut random = Random::of(seed());
    let (mut encoder, mut decoder) = both();
    let mut in_columns = 0;
    for round in 0..rounds(400) {
        let documents = frame(&mut random);
        encoder.bare = round % 2 == 0;
        let Some(encoded) = encoder.encode(&documents).unwrap() else { continue };
        in_columns += 1;
        let decoded = decoder.decode(&encoded, documents.len()).unwrap();
        assert!(decoded == documents, "round {round} differs");
        assert_eq!(Decoder::claimed(&encoded), Some(documents.len()));
        for other in [documents.len() - 1, documents.len() + 1] {
            assert_eq!(decoder.decode(&encoded, other).unwrap_err().kind(), ErrorKind::Damaged);
        }
    }
    assert!(in_columns > rounds(400) / 2, "only {in_columns} were in columns");
}

#[test]
fn hostile_frames_are_refused_or_bounded() {
    let mut random = Random::of(seed() ^ 77);
    let (mut encoder, mut decoder) = both();
    let (mut decoded, mut refused) = (0, 0);
    for round in 0..rounds(100) {
        let documents = frame(&mut random);
        encoder.bare = round % 8 != 0;
        let Some(mut encoded) = encoder.encode(&documents).unwrap().filter(|_| documents.len() < 100_000) else { continue };
        encoded.truncate(encoded.len() - super::CHECKSUM);
        for _ in 0..40 {
            let mut changed = encoded.clone();
            for _ in 0..1 + random.below(3) {
                // Mostly in the small streams at the front, with the structure.
                let span = if random.once_in(2) { changed.len().min(200) } else { changed.len() };
                let at = MAGIC.len() + random.below((span - MAGIC.len()) as u64) as usize;
                match random.below(5) {
                    _ if at >= changed.len() => {}
                    0 => changed[at] = random.next() as u8,
                    1 => changed[at] ^= 1 << random.below(8),
                    2 => changed.truncate(at + 1),
                    3 => changed[at] = changed[at].wrapping_add(1),
                    _ => changed[at] = *random.one(&[0, 1, 2, 0x7f, 0xff]),
                }
            }
            // A segment's table would claim the same as the frame, up to a plausible size.
            let claimed = Decoder::claimed(&changed).unwrap_or(0).min(2 * documents.len());
            match decoder.decode_unchecked(&changed, claimed) {
                Ok(made) => {
                    assert_eq!(made.len(), claimed);
                    decoded += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(decoded > 0 && refused > decoded, "{decoded} decoded to something, {refused} refused");
}

#[test]
fn frames_that_are_cut_or_flipped_are_damaged() {
    let mut random = Random::of(seed() ^ 5);
    let (mut encoder, mut decoder) = both();
    let (documents, encoded) = loop {
        let documents = shaped(&mut random, 40);
        if let Some(encoded) = encoder.encode(&documents).unwrap() {
            break (documents, encoded);
        }
    };
    for length in 0..encoded.len() {
        let error = decoder.decode(&encoded[..length], documents.len()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{length}: {error}");
        let mut flipped = encoded.clone();
        flipped[length] ^= 0x10;
        // Meaningless bits, for instance reserved ones of zstd, may differ; the documents may not.
        if let Ok(same) = decoder.decode(&flipped, documents.len()) {
            assert!(same == documents, "byte {length}");
        }
    }
    let longer = [encoded.as_slice(), &[0]].concat();
    assert_eq!(decoder.decode(&longer, documents.len()).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn absurd_lengths_are_refused_by_name() {
    let mut decoder = Decoder::new().unwrap();
    let mut refused = |raw_length: usize, parts: &[u32]| {
        let mut frame = MAGIC.to_vec();
        parts.iter().for_each(|&part| put_varint(&mut frame, part));
        frame.extend([0; 12]);
        decoder.decode(&frame, raw_length).unwrap_err().to_string()
    };
    let prefix = "a frame of columns cannot be read: ";
    assert_eq!(refused(100, &[99]), format!("{prefix}it says that it holds another number of bytes"));
    assert_eq!(refused(100, &[100, 21]), format!("{prefix}it says that it holds more documents than it can"));
    let large = refused(100, &[100, 20, u32::MAX]);
    assert_eq!(large, format!("{prefix}its sections are larger than its documents can be"));
    // Five parts of structure, each longer than the whole.
    let mut structure = Vec::new();
    (0..5).for_each(|_| put_varint(&mut structure, u32::MAX));
    let mut frame = MAGIC.to_vec();
    [100, 20, structure.len() as u32].iter().for_each(|&part| put_varint(&mut frame, part));
    frame.extend((structure.len() as u32).to_le_bytes());
    frame.extend(structure);
    frame.extend([0; 4 + 8]);
    assert_eq!(decoder.decode(&frame, 100).unwrap_err().to_string(), format!("{prefix}one of its streams ends early"));
    // A constant of four billion values.
    let mut definitions = vec![0x12, 0];
    definitions.extend(b"n\0");
    let mut directory = Vec::new();
    put_varint(&mut directory, u32::MAX);
    directory.push(super::layout::CONSTANT);
    let mut structure = Vec::new();
    [definitions.len(), 0, 0, directory.len(), 0].iter().for_each(|&n| put_varint(&mut structure, n as u32));
    structure.extend([definitions, directory].concat());
    let mut frame = MAGIC.to_vec();
    [100, 20].iter().for_each(|&part| put_varint(&mut frame, part));
    for section in [structure.as_slice(), &[], &[0; 8], &[], &[]] {
        put_varint(&mut frame, section.len() as u32);
        if !section.is_empty() {
            frame.extend((section.len() as u32).to_le_bytes());
            frame.extend(section);
        }
    }
    frame.extend([0; 8]);
    let error = decoder.decode(&frame, 100).unwrap_err().to_string();
    assert_eq!(error, format!("{prefix}its columns are larger than its documents can be"));
}

#[test]
fn documents_that_are_all_different_are_left_to_zstd() {
    let mut random = Random::of(seed());
    let mut encoder = Encoder::new(Compression::of(1)).unwrap();
    let mut documents = Vec::new();
    while documents.len() < 400 * 1024 {
        let mut elements = Vec::new();
        for _ in 0..4 {
            elements.push(0x12);
            elements.extend(format!("{:x}\0", random.next()).into_bytes());
            elements.extend(random.next().to_le_bytes());
        }
        documents.extend(document(&elements));
    }
    assert!(encoder.encode(&documents).unwrap().is_none());
    let alike = document(b"\x10n\0\x01\0\0\0").repeat(40_000);
    let encoded = encoder.encode(&alike).unwrap().unwrap();
    assert!(encoded.len() < 200, "{}", encoded.len());
}

/// Nearly empty texts cost a reader more than their bytes: what is written must still be readable.
#[test]
fn a_frame_of_empty_regular_expressions_comes_back() {
    let mut elements = [0x0B, 0, 0, 0].repeat(600_000);
    elements.extend([0x0B, 0, b'a', 0, 0]);
    let documents = document(&elements);
    let (mut encoder, mut decoder) = both();
    if let Some(frame) = encoder.encode(&documents).unwrap() {
        assert_eq!(decoder.decode(&frame, documents.len()).unwrap(), documents);
    }
}
