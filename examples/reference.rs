//! Writes the reference pages below `docs/reference/` from the program itself.
//!
//! ```sh
//! cargo run --example reference
//! ```

use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for page in bsonvault::cli::reference::pages() {
        std::fs::write(root.join(page.path), page.text)?;
    }
    Ok(())
}
