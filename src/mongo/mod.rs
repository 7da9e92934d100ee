//! What `source` and `sink` share for MongoDB: URIs, connections, raw commands, the catalog, and
//! error messages. These three are the only users of the driver.

pub mod catalog;
pub mod command;
pub mod connect;
pub mod failure;
pub mod members;
mod probe;
mod read_preference;
pub mod retry;
pub mod rights;
pub mod survey;
mod tls;
mod unreached;
pub mod uri;

pub use connect::{Connection, Version};
pub use read_preference::ReadPreference;
pub use uri::{MongoUri, Role};
