//! Column norms, whichever program measured them.
//!
//! A column norm is the sum of squares of one input feature of one linear layer over the calibration tokens, `n_j =
//! sum_t X_tj^2`. Pruning needs `in_features` of them for every weight it prunes. They are expensive to measure and
//! small to store, so they have files of their own. Three formats are read, told apart by content and never by the
//! file's name, and norms are looked up by the *name of the weight*.
//!
//! | format | where from | names |
//! |---|---|---|
//! | safetensors ([`Format::Safetensors`]) | `calibrate` of this program; also written here | the weight's own |
//! | GGUF ([`Format::Gguf`]) | `llama-imatrix` | llama.cpp's, mapped by the table in `src/names` |
//! | dat ([`Format::Dat`]) | `llama-imatrix` of before mid-2025 | the same |
//!
//! **Scale.** The first two hold the sums themselves. The old `.dat` holds them times a positive constant (a mean times a
//! number of chunks). Every score takes the norms of one weight relative to each other, so the scale drops out; norms of
//! two files must not be added.
//!
//! **Experts.** One expert of a mixture sees only the tokens routed to it, and on a short calibration text that can be
//! no token at all. Its norms are then not small but *unknown*: [`Lookup::Unseen`] is neither [`Lookup::Absent`] nor a
//! vector of zeros. What to use instead is for the caller to decide and to report.
//!
//! **Trust.** The files are not trusted: their size is bounded by [`MAX_FILE`], every length is checked against the file
//! before anything is allocated, every value that is looked up must be finite and not negative, and names are escaped in
//! messages.

mod bytes;
mod coverage;
mod cursor;
mod dat;
mod entries;
mod error;
mod file;
mod gguf;
mod lookup;
mod means;
mod provenance;
mod sketches;

use std::path::Path;
use std::sync::Arc;

pub use bytes::MAX_FILE;
pub use coverage::{Coverage, few_tokens};
pub(crate) use entries::Blocks;
pub use entries::Norms;
pub use error::Error;
pub use lookup::Lookup;
pub use provenance::{Format, Provenance};
pub(crate) use sketches::Sketches;

use crate::untrusted::{self, ReadError};
use bytes::Bytes;

/// Bytes that tell the formats apart.
const START: usize = 9;

impl Norms {
    /// Reads a norms file or an importance matrix, whichever the content says.
    ///
    /// # Errors
    /// [`Error::NotNorms`] for anything else (a model, a text), [`Error::Malformed`] for a damaged file,
    /// [`Error::TooLarge`], [`Error::Io`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let refused = |error: ReadError| match error {
            ReadError::TooLong { len, limit } => Error::TooLarge {
                path: path.to_owned(),
                bytes: len,
                limit,
            },
            ReadError::Io { source, .. } => Error::io(path, source),
            ReadError::NotRegular | ReadError::LfsPointer => {
                Error::not_norms(path, error.to_string())
            }
        };
        let (norms_file, len) = untrusted::open_regular(path).map_err(refused)?;
        let norms_file = Bytes::File(Arc::new(norms_file));
        let start = norms_file.read(0, START.min(len as usize));
        if file::starts(&start.map_err(|e| Error::io(path, e))?) {
            // It may hold sketches, which are many times as large.
            return file::parse(&norms_file, len, path);
        }
        Self::parse(&untrusted::read(path, MAX_FILE).map_err(refused)?, path)
    }

    /// Reads a norms file or an importance matrix that is in memory; `path` is what messages call it.
    ///
    /// # Errors
    /// As [`Self::read`], but not [`Error::Io`].
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, Error> {
        if gguf::starts(bytes) {
            gguf::parse(bytes, path)
        } else if file::starts(bytes) {
            file::parse(&Bytes::Memory(bytes.into()), bytes.len() as u64, path)
        } else if dat::starts(bytes) {
            dat::parse(bytes, path)
        } else if bytes.is_empty() {
            Err(Error::not_norms(path, "it is empty"))
        } else {
            Err(Error::not_norms(path, "it has none of the known formats"))
        }
    }

    /// Writes the norms as this program's norms file, replacing `path` in one step or leaving it as it was.
    ///
    /// The same norms and the same metadata give the same bytes. Names stay as they are: an importance matrix written
    /// this way keeps llama.cpp's names, which [`get`](Self::get) still finds.
    ///
    /// # Errors
    /// [`Error::Write`], and [`Error::Malformed`] for a name that no tensor can have.
    #[cfg(feature = "native")]
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        file::write(self, path)
    }
}

#[cfg(test)]
mod tests;
