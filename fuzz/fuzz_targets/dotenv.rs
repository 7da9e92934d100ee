#![no_main]

use bsonvault_fuzz::{dotenv, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::write("dotenv"), |bytes: &[u8]| dotenv(bytes));
