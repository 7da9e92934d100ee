#![no_main]

use bsonvault_fuzz::{metadata, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::write("metadata"), |bytes: &[u8]| metadata(bytes));
