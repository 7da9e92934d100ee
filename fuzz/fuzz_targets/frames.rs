#![no_main]

use bsonvault_fuzz::{frames, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::write("frames"), |bytes: &[u8]| frames(bytes));
