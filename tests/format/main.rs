//! The format's proofs: what is written comes back, any damage is found, and no bytes make a reader panic.

mod archive;
#[cfg(test)]
mod catalog;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
#[path = "../../fuzz/src/lib.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is the library of another crate")]
mod fuzz;
#[cfg(test)]
mod fuzzed;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod metadata;
#[cfg(test)]
mod mongodump;
#[cfg(test)]
mod mongodump_damage;
#[cfg(test)]
mod store;
#[cfg(test)]
mod tools;
