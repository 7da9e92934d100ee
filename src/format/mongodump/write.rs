//! Writing an archive: the bytes between documents.
