#![no_main]

use bsonvault_fuzz::{oplog, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::write("oplog"), |bytes: &[u8]| oplog(bytes));
