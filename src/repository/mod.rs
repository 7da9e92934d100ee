//! Where backups live: the objects of a place ([`backend`]), their keys ([`layout`]), which backups they are ([`catalog`]),
//! who works on one ([`lock`]), what makes an unfinished one resumable ([`checkpoint`]), and which of them stay
//! ([`retention`]).

pub mod backend;
pub mod catalog;
pub mod checkpoint;
pub mod layout;
pub mod lock;
mod remove;
pub mod retention;
