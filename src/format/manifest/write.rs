//! Writing a manifest, and proving that it can be read back.

use super::{Manifest, read};
use crate::error::{Error, ErrorKind, Result};

/// Counts what is written.
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
    /// The manifest's bytes, with its own digest in place, read back as a proof that a reader takes them.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] where it cannot be written as JSON, or a reader would refuse it.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = self.to_json()?;
        read::seal(&mut bytes, &self.sha256);
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
        // Counted first: a vector that grows takes up to three times its bytes.
        let mut counted = Counted(0);
        serde_json::to_writer_pretty(&mut counted, self).map_err(failed)?;
        let mut bytes = Vec::with_capacity(counted.0 + 1);
        serde_json::to_writer_pretty(&mut bytes, self).map_err(failed)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}
