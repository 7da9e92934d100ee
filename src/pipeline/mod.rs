//! The bounded stages between a server and a store.

pub mod budget;
pub mod cpu;
pub mod pace;
pub mod progress;
pub mod read;
pub mod steer;
pub mod write;
