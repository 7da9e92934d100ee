#![no_main]

use bsonvault_fuzz::{archive, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::write("archive"), |bytes: &[u8]| archive(bytes));
