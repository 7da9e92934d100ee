#![no_main]

use bsonvault_fuzz::{manifest, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::write("manifest"), |bytes: &[u8]| manifest(bytes));
