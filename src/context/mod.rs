//! What an operation works with, whatever it is: the processor, memory, and who follows its progress.

pub mod cpu;
pub mod memory;
pub mod progress;
