//! What the parts of one run share.

use std::sync::Arc;

use super::archived::Archived;
use crate::context::Context;
use crate::repository::backend::Objects;
use crate::repository::checkpoint::Durable;
use crate::repository::lock::heartbeat::HeartbeatState;

/// What the parts of one run share.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) place: &'a Objects,
    pub(super) state: &'a Arc<HeartbeatState>,
    pub(super) durable: &'a Arc<Durable>,
    /// The archive of the source's oplog that is being written beside it.
    pub(super) archived: Option<&'a Archived>,
    pub(super) cx: &'a Context,
}
