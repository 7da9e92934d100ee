//! The settings from the command line.

use super::settings::{
    ADAPTIVE_THROTTLE, ATLAS, CODEC, FRAME, LEVEL, LOCAL, LONG_DISTANCE, MAX_MBIT, MEMORY, PATH, PITR_KEEP, PITR_MAX_REPLAY,
    READ_PREFERENCE, READERS, SYNC_DELAY, SYNC_PROOF, Setting, WRITERS,
};

/// The values from the command line, as typed. An empty one is refused.
#[derive(Clone, Default)]
pub struct Flags {
    /// `--source`
    pub source: Option<String>,
    /// `--target`
    pub target: Option<String>,
    /// `--path`
    pub path: Option<String>,
    /// `--readers`
    pub readers: Option<String>,
    /// `--writers`
    pub writers: Option<String>,
    /// `--level`
    pub level: Option<String>,
    /// `--codec`
    pub codec: Option<String>,
    /// `--long`
    pub long_distance: Option<String>,
    /// `--frame-mb`
    pub frame_mb: Option<String>,
    /// `--max-mbit`
    pub max_mbit: Option<String>,
    /// `--adaptive-throttle`
    pub adaptive_throttle: Option<String>,
    /// `--read-preference`
    pub read_preference: Option<String>,
    /// `--memory-mb`
    pub memory_mb: Option<String>,
    /// `--pitr-keep`
    pub pitr_keep: Option<String>,
    /// `--pitr-max-replay`
    pub pitr_max_replay: Option<String>,
    /// `--delay`
    pub delay: Option<String>,
    /// `--proof`.
    pub proof: Option<String>,
    /// `--address`: the IP address to listen on.
    pub address: Option<String>,
    /// `--port`: the port to listen on. 0 takes a free one.
    pub port: Option<String>,
}

impl Flags {
    /// The settings among them.
    pub(super) fn settings(&self) -> [(&'static Setting, &Option<String>); 17] {
        [
            (&ATLAS, &self.source),
            (&LOCAL, &self.target),
            (&PATH, &self.path),
            (&READERS, &self.readers),
            (&WRITERS, &self.writers),
            (&LEVEL, &self.level),
            (&CODEC, &self.codec),
            (&LONG_DISTANCE, &self.long_distance),
            (&FRAME, &self.frame_mb),
            (&MAX_MBIT, &self.max_mbit),
            (&ADAPTIVE_THROTTLE, &self.adaptive_throttle),
            (&READ_PREFERENCE, &self.read_preference),
            (&MEMORY, &self.memory_mb),
            (&PITR_KEEP, &self.pitr_keep),
            (&PITR_MAX_REPLAY, &self.pitr_max_replay),
            (&SYNC_DELAY, &self.delay),
            (&SYNC_PROOF, &self.proof),
        ]
    }
}
