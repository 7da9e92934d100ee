//! Runs the fuzzing functions on the seeds, on small changes of them, and on every input that
//! fuzzing once found.

use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::fuzz::{self, seeds};

/// How many changed inputs are tried per seed.
const CHANGED: usize = 8;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 7] = [
    ("archive", fuzz::archive),
    ("columns", fuzz::columns),
    ("documents", fuzz::documents),
    ("frames", fuzz::frames),
    ("manifest", fuzz::manifest),
    ("metadata", fuzz::metadata),
    ("oplog", fuzz::oplog),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A few bytes changed, or an end cut off.
fn changed(seed: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..bytes.len());
        bytes[at] = random.random();
    }
    if random.random_bool(0.25) {
        bytes.truncate(random.random_range(0..=seed.len()));
    }
    bytes
}

#[test]
fn fuzz_targets_hold_on_their_seeds_and_near_them() {
    let mut random = StdRng::seed_from_u64(7);
    for (name, target) in TARGETS {
        let seeds = seeds::of(name, root());
        assert!(!seeds.is_empty(), "{name} has no seeds");
        // Frames are slow to create, and their content does not matter.
        for seed in seeds.iter().take(40) {
            target(seed);
            (0..CHANGED).for_each(|_| target(&changed(seed, &mut random)));
        }
    }
}

#[test]
fn what_fuzzing_once_found_is_mended() {
    for (name, target) in TARGETS {
        let Ok(found) = std::fs::read_dir(root().join("fuzz/found").join(name)) else { continue };
        for file in found {
            let file = file.unwrap().path();
            println!("{}", file.display());
            target(&std::fs::read(&file).unwrap());
        }
    }
}

#[test]
fn every_fuzz_target_is_tried_here() {
    let mut files: Vec<String> = std::fs::read_dir(root().join("fuzz/fuzz_targets"))
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    assert_eq!(files, TARGETS.map(|(name, _)| name));
}
