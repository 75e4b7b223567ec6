//! Column norms, whoever measured them.
//!
//! A column norm is the sum of squares of one input feature of one linear layer over the calibration tokens, `n_j = sum_t
//! X_tj^2`. Pruning needs `in_features` of them for every weight it prunes. They are expensive to measure and tiny to
//! keep, so they are an artifact of their own: this room reads them from three formats, told apart by content and never
//! by the file's name, and hands them out by *weight name*.
//!
//! | format | where from | names |
//! |---|---|---|
//! | safetensors ([`Format::Safetensors`]) | `calibrate` of this program; also written here | the weight's own |
//! | GGUF ([`Format::Gguf`]) | `llama-imatrix` | llama.cpp's, mapped by the table in `names.rs` |
//! | dat ([`Format::Dat`]) | `llama-imatrix` of before mid-2025 | the same |
//!
//! **Scale.** The first two hold the sums themselves. The old `.dat` holds them times a positive constant (a mean times a
//! number of chunks). Every score takes the norms of one weight relative to each other, so the scale drops out; norms of
//! two files must not be added.
//!
//! **Experts.** One expert of a mixture sees only the tokens routed to it, and on a short calibration text that can be
//! none. Its norms are then not small but *unknown*, and that is said: [`Lookup::Unseen`] is neither
//! [`Lookup::Absent`] nor a vector of zeros, and what to fall back on is for the caller to decide and to report.
//!
//! **Trust.** The files are strangers': bounded by [`MAX_FILE`], every length checked against the file before anything is
//! allocated, every value finite and not negative, names escaped in messages.

mod coverage;
mod cursor;
mod dat;
mod error;
mod file;
mod gguf;
mod names;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use coverage::Coverage;
pub use error::Error;
use error::printable;

/// The longest file that is read, in bytes: 2 GiB, about what a mixture of experts with 10^12 weights needs.
pub const MAX_FILE: u64 = 2 << 30;

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
pub struct Provenance {
    /// The file they were read from; for [`Format::Measured`], the model they were measured on.
    pub path: PathBuf,
    /// How they were stored.
    pub format: Format,
    /// Calibration tokens, where the file says.
    pub tokens: Option<u64>,
    /// What else the file says (text, windows, program). As it stands in the file: escape it before printing.
    pub metadata: BTreeMap<String, String>,
}

/// The answer to "which norms does this weight have?".
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lookup<'a> {
    /// `in_features` norms, finite and not negative, at least one of them above zero.
    Measured(&'a [f32]),
    /// The weight is there, but nothing was measured: no calibration token reached it (an expert that was never chosen).
    Unseen,
    /// The source knows no such weight.
    Absent,
}

impl<'a> Lookup<'a> {
    /// The norms, if they were measured. Whoever calls this must say what became of the other two cases.
    pub fn measured(self) -> Option<&'a [f32]> {
        match self {
            Self::Measured(norms) => Some(norms),
            Self::Unseen | Self::Absent => None,
        }
    }
}

/// The column norms of a model's weights, and where they come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Norms {
    /// Where they come from.
    pub source: Provenance,
    entries: BTreeMap<String, Entry>,
}

/// The norms under one name.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    /// `Some(e)`: `[e, in_features]`. `None`: a vector, which in an importance matrix may be several experts' end to end.
    experts: Option<usize>,
    values: Vec<f32>,
}

impl Norms {
    /// Norms of nothing yet, to be filled by [`insert`](Self::insert).
    pub fn new(source: Provenance) -> Self {
        Self {
            source,
            entries: BTreeMap::new(),
        }
    }

    /// Reads a norms file or an importance matrix, whichever the content says.
    ///
    /// # Errors
    /// [`Error::NotNorms`] for anything else (a model, a text), [`Error::Malformed`] for a damaged file, [`Error::Value`]
    /// for a norm that no sum of squares can be, [`Error::TooLarge`], [`Error::Io`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::io(path, source);
        let file = File::open(path).map_err(io)?;
        let meta = file.metadata().map_err(io)?;
        if meta.is_dir() {
            return Err(Error::not_norms(path, "it is a directory"));
        }
        let too_large = |bytes| Error::TooLarge {
            path: path.to_owned(),
            bytes,
            limit: MAX_FILE,
        };
        if meta.len() > MAX_FILE {
            return Err(too_large(meta.len()));
        }
        // A pipe has no length and a file may grow: the limit holds for what is read, not for what was promised.
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1)
            .read_to_end(&mut bytes)
            .map_err(io)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(too_large(bytes.len() as u64));
        }
        Self::parse(&bytes, path)
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<Self, Error> {
        let parse = if gguf::starts(bytes) {
            gguf::parse
        } else if file::starts(bytes) {
            file::parse
        } else if dat::starts(bytes) {
            dat::parse
        } else if bytes.is_empty() {
            return Err(Error::not_norms(path, "it is empty"));
        } else {
            return Err(Error::not_norms(
                path,
                "it starts like none of the known formats",
            ));
        };
        parse(bytes, path)
    }

    /// Adds the norms of one weight, `[in_features]`, under the weight's own name; replaces those that were there.
    ///
    /// # Errors
    /// [`Error::Value`] if a norm is negative or not finite, [`Error::Malformed`] if there are none.
    pub fn insert(&mut self, weight: impl Into<String>, norms: Vec<f32>) -> Result<(), Error> {
        self.put(weight.into(), None, norms)
    }

    /// Adds the norms of a weight that holds `experts` matrices, `[experts, in_features]`, row-major.
    ///
    /// # Errors
    /// As [`insert`](Self::insert); also [`Error::Malformed`] if `norms` is not `experts` rows.
    pub fn insert_experts(
        &mut self,
        weight: impl Into<String>,
        experts: usize,
        norms: Vec<f32>,
    ) -> Result<(), Error> {
        self.put(weight.into(), Some(experts), norms)
    }

    /// Every norm enters here, so everything that can be asked for has been checked.
    fn put(&mut self, name: String, experts: Option<usize>, values: Vec<f32>) -> Result<(), Error> {
        let malformed = |what: String| {
            Error::malformed(
                &self.source.path,
                self.source.format,
                format!("`{}` {what}", printable(&name)),
            )
        };
        if values.is_empty() {
            return Err(malformed("holds no values".into()));
        }
        if let Some(experts) = experts
            && !values.len().is_multiple_of(experts)
        {
            return Err(malformed(format!(
                "holds {} values for {experts} experts",
                values.len()
            )));
        }
        if let Some(column) = values.iter().position(|v| !(v.is_finite() && *v >= 0.0)) {
            return Err(Error::Value {
                path: self.source.path.clone(),
                tensor: printable(&name),
                column,
                value: values[column],
            });
        }
        self.entries.insert(name, Entry { experts, values });
        Ok(())
    }

    /// [`put`](Self::put) for a name that must be new: a file that says a thing twice says nothing.
    fn put_new(
        &mut self,
        name: String,
        experts: Option<usize>,
        values: Vec<f32>,
    ) -> Result<(), Error> {
        if self.entries.contains_key(&name) {
            let what = format!("`{}` is there twice", printable(&name));
            return Err(Error::malformed(
                &self.source.path,
                self.source.format,
                what,
            ));
        }
        self.put(name, experts, values)
    }

    /// The norms of a weight of `in_features` inputs, asked for by the name it has in the checkpoint.
    ///
    /// `expert` picks one matrix of a weight that holds several (`[experts, ..]`); for one matrix it is `None`, also where
    /// the name itself counts the experts (`experts.3.w1.weight`). A name that the source does not have is looked up
    /// under the names llama.cpp gives that weight. In this program's norms files a plain vector under the name of
    /// a weight with experts serves all of them.
    ///
    /// # Errors
    /// [`Error::Length`] and [`Error::Experts`] where the source has norms of another shape: silence would prune by
    /// another model's norms.
    pub fn get(
        &self,
        weight: &str,
        expert: Option<usize>,
        in_features: usize,
    ) -> Result<Lookup<'_>, Error> {
        let own = std::iter::once((weight.to_owned(), expert, true));
        let mapped = names::candidates(weight, expert)
            .into_iter()
            .map(|(name, expert)| (name, expert, false));
        for (name, expert, own) in own.chain(mapped) {
            if let Some(entry) = self.entries.get(&name) {
                return self.select(&name, entry, own, weight, expert, in_features);
            }
        }
        Ok(Lookup::Absent)
    }

    fn select<'a>(
        &self,
        name: &str,
        entry: &'a Entry,
        own: bool,
        weight: &str,
        expert: Option<usize>,
        in_features: usize,
    ) -> Result<Lookup<'a>, Error> {
        let (path, tensor, weight) = (self.source.path.clone(), printable(name), printable(weight));
        let total = entry.values.len();
        let per_expert = match (entry.experts, expert) {
            (Some(experts), _) => total / experts,
            // An importance matrix of the old form, or one converted from it, does not say where an expert ends.
            (None, Some(_)) if !own && in_features > 0 && total.is_multiple_of(in_features) => {
                in_features
            }
            (None, _) => total,
        };
        if per_expert != in_features {
            return Err(Error::Length {
                path,
                tensor,
                weight,
                found: per_expert,
                wanted: in_features,
            });
        }
        let experts = total / per_expert;
        let first = match expert {
            // A plain vector under the weight's own name is the norms of all its experts' tokens together.
            Some(_) if own && entry.experts.is_none() => 0,
            Some(e) if e < experts => e * per_expert,
            None if experts == 1 => 0,
            wanted => {
                return Err(Error::Experts {
                    path,
                    tensor,
                    weight,
                    found: experts,
                    wanted,
                });
            }
        };
        let norms = &entry.values[first..first + per_expert];
        // llama.cpp's older form stores an expert that saw no token as a constant, and a conversion to GGUF keeps it;
        // measured norms of two or more features are never all the same. Zeros mean the same in any format.
        let constant = norms.iter().all(|n| *n == norms[0]);
        let placeholder = expert.is_some()
            && matches!(self.source.format, Format::Gguf | Format::Dat)
            && norms.len() > 1;
        Ok(if constant && (norms[0] == 0.0 || placeholder) {
            Lookup::Unseen
        } else {
            Lookup::Measured(norms)
        })
    }

    /// The names the norms are stored under, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// How many weights there are norms of.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Writes the norms as this program's norms file, replacing `path` in one step or leaving it as it was.
    ///
    /// The same norms and the same metadata give the same bytes. Names stay as they are: an importance matrix written
    /// this way keeps llama.cpp's names, which [`get`](Self::get) still finds.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        file::write(self, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cuts a file at every length, of which `harmless` leave a whole file, and flips bits all over it: no reader panics.
    pub(super) fn survives_damage(whole: &[u8], harmless: usize) {
        let read = |bytes: &[u8]| Norms::parse(bytes, Path::new("damaged"));
        read(whole).unwrap();
        let unnoticed = (0..whole.len())
            .filter(|n| read(&whole[..*n]).is_ok())
            .count();
        assert_eq!(
            unnoticed,
            harmless,
            "cuts that went unnoticed, of {}",
            whole.len()
        );
        // xorshift: any spread will do, the same one every time.
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut refused = 0;
        for round in 0..20_000 {
            let mut bytes = whole.to_vec();
            for _ in 0..=round % 3 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let at = (state >> 8) as usize % bytes.len();
                bytes[at] = if state & 1 == 0 {
                    bytes[at] ^ (1 << ((state >> 1) & 7))
                } else {
                    (state >> 40) as u8
                };
            }
            refused += usize::from(read(&bytes).is_err());
        }
        // Else the damage does not reach what is checked.
        assert!(refused > 1000, "{refused} of 20000 were refused");
    }

    fn source(format: Format) -> Provenance {
        Provenance {
            path: "some.norms".into(),
            format,
            tokens: None,
            metadata: BTreeMap::new(),
        }
    }

    #[test]
    fn norms_are_found_under_the_weights_own_name() {
        let mut norms = Norms::new(source(Format::Measured));
        norms.insert("a.weight", vec![1.0, 2.0]).unwrap();
        assert_eq!(
            norms.get("a.weight", None, 2).unwrap(),
            Lookup::Measured(&[1.0, 2.0])
        );
        assert_eq!(norms.get("b.weight", None, 2).unwrap(), Lookup::Absent);
    }

    #[test]
    fn another_models_norms_are_an_error_that_names_both_lengths() {
        let mut norms = Norms::new(source(Format::Safetensors));
        norms.insert("a.weight", vec![1.0, 2.0]).unwrap();
        let message = norms.get("a.weight", None, 4).unwrap_err().to_string();
        for part in [
            "some.norms",
            "`a.weight`",
            "2 column norms",
            "4 input features",
            "another model",
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert!(matches!(
            norms.get("a.weight", None, 0),
            Err(Error::Length { .. })
        ));
    }

    #[test]
    fn a_norm_that_no_sum_of_squares_can_be_is_refused_with_its_column() {
        let mut norms = Norms::new(source(Format::Measured));
        for bad in [f32::NAN, f32::INFINITY, -1.0] {
            let error = norms.insert("a\u{7}", vec![0.0, bad]).unwrap_err();
            assert!(
                matches!(&error, Error::Value { column: 1, tensor, .. } if tensor == "a\\u{7}"),
                "{error}"
            );
        }
        norms.insert("a", vec![0.0, 1.0]).unwrap();
        assert!(norms.insert("a", vec![]).is_err());
        assert!(norms.insert_experts("a", 0, vec![1.0]).is_err());
        assert!(norms.insert_experts("a", 2, vec![1.0, 2.0, 3.0]).is_err());
    }

    #[test]
    fn each_expert_has_its_own_row_and_a_plain_vector_serves_all() {
        let mut norms = Norms::new(source(Format::Measured));
        norms
            .insert_experts("e", 2, vec![1.0, 2.0, 3.0, 4.0])
            .unwrap();
        norms.insert("v", vec![5.0, 6.0]).unwrap();
        assert_eq!(
            norms.get("e", Some(1), 2).unwrap().measured(),
            Some(&[3.0, 4.0][..])
        );
        assert_eq!(
            norms.get("v", Some(7), 2).unwrap().measured(),
            Some(&[5.0, 6.0][..])
        );
        assert!(matches!(
            norms.get("e", Some(2), 2),
            Err(Error::Experts {
                found: 2,
                wanted: Some(2),
                ..
            })
        ));
        assert!(matches!(
            norms.get("e", None, 2),
            Err(Error::Experts { wanted: None, .. })
        ));
        assert!(matches!(
            norms.get("e", Some(0), 4),
            Err(Error::Length { found: 2, .. })
        ));
        assert!(matches!(
            norms.get("v", Some(0), 1),
            Err(Error::Length { .. })
        ));
    }

    #[test]
    fn an_expert_no_token_reached_is_unseen_and_not_a_vector_of_zeros() {
        let mut norms = Norms::new(source(Format::Safetensors));
        norms
            .insert_experts("e", 2, vec![0.0, 0.0, 3.0, 3.0])
            .unwrap();
        assert_eq!(norms.get("e", Some(0), 2).unwrap(), Lookup::Unseen);
        // A constant is a measurement in our own files, where nothing is made up.
        assert_eq!(
            norms.get("e", Some(1), 2).unwrap(),
            Lookup::Measured(&[3.0, 3.0])
        );
    }

    #[test]
    fn what_is_no_file_of_norms_is_told_so() {
        for bytes in [
            &b""[..],
            b"PK\x03\x04 a zip archive",
            b"hello, world, this is a text",
            &[0; 64],
        ] {
            let error = Norms::parse(bytes, Path::new("x")).unwrap_err();
            assert!(matches!(error, Error::NotNorms { .. }), "{error}");
        }
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(Norms::read(here).is_err());
        assert!(matches!(
            Norms::read(&here.join("no such file")),
            Err(Error::Io { .. })
        ));
    }
}
