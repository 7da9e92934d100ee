#![no_main]

use bsonvault_fuzz::{documents, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::write("documents"), |bytes: &[u8]| documents(bytes));
