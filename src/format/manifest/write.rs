//! Writes a manifest, and verifies that it can be read back.

use super::Manifest;
use crate::error::{Error, ErrorKind, Result};
use crate::format::sealed;

/// Counts the bytes written.
struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Manifest {
    /// The manifest's bytes, including its own digest, read back to verify that a reader accepts
    /// them.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if it cannot be written as JSON, or a reader would refuse it.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = self.to_json()?;
        sealed::seal(&mut bytes, &self.sha256);
        match self.prove(&bytes) {
            Ok(()) => Ok(bytes),
            Err(e) => {
                let message = format!("the manifest of {} cannot be read back: {e}", self.name);
                Err(Error::new(ErrorKind::Internal, message).cause(e))
            }
        }
    }

    fn to_json(&self) -> Result<Vec<u8>> {
        let failed = |e| Error::new(ErrorKind::Internal, "cannot write the manifest as JSON").cause(e);
        // Counted first: a growing vector takes up to three times its bytes.
        let mut counted = Counted(0);
        serde_json::to_writer_pretty(&mut counted, self).map_err(failed)?;
        let mut bytes = Vec::with_capacity(counted.0 + 1);
        serde_json::to_writer_pretty(&mut bytes, self).map_err(failed)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}
