//! Where norms come from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// How norms are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// This program's norms file.
    Safetensors,
    /// A llama.cpp importance matrix in GGUF.
    Gguf,
    /// A llama.cpp importance matrix in the older binary form.
    Dat,
    /// Not from a file: measured in this run.
    Measured,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "norms file",
            Self::Gguf => "GGUF importance matrix",
            Self::Dat => "importance matrix (.dat)",
            Self::Measured => "measurement",
        })
    }
}

/// Where norms come from, as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Provenance {
    /// The file they were read from; for [`Format::Measured`], the model they were measured on.
    pub path: PathBuf,
    /// How they were stored.
    pub format: Format,
    /// Number of calibration tokens, where the file says.
    pub tokens: Option<u64>,
    /// What else the file says (text, windows, program). As it stands in the file: escape it before printing.
    pub metadata: BTreeMap<String, String>,
}

impl Provenance {
    /// Whether they are from a file of a version that put nothing before a window but the first, whatever the tokenizer says.
    #[must_use]
    pub(crate) fn is_silent_on_prefix(&self) -> bool {
        let says = |key| self.metadata.contains_key(key);
        self.format == Format::Safetensors && says("text_sha256") && !says("prefix")
    }

    /// Norms that are measured in this run on `model`, over so many tokens.
    #[must_use]
    pub fn measured(model: PathBuf, tokens: Option<u64>) -> Self {
        Self {
            path: model,
            format: Format::Measured,
            tokens,
            metadata: BTreeMap::new(),
        }
    }
}
