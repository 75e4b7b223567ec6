//! Norms by the name of their weight, checked when they are added.

use std::collections::BTreeMap;
use std::ops::Range;

use super::error::Error;
use super::lookup::Lookup;
use super::provenance::{Format, Provenance};
use super::sketches::Sketches;
use crate::names::grammar::{block, is_of_side_decoder};
use crate::names::imatrix;
use crate::untrusted::shown;

/// The column norms of a model's weights, and where they come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Norms {
    /// Where they come from.
    pub source: Provenance,
    pub(super) entries: BTreeMap<String, Entry>,
    /// Of the inputs, where they were taken.
    pub(crate) sketches: Option<Sketches>,
}

/// The norms under one name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// `Some(e)`: `[e, in_features]`. `None`: a vector, which in an importance matrix may be several experts' end to end.
    pub(super) experts: Option<usize>,
    pub(super) values: Vec<f32>,
    /// The mean of each feature, where it was measured: as many as values, in their order.
    pub(super) means: Option<Vec<f32>>,
    /// The tokens that went into each row, where that is known and differs from weight to weight.
    pub(super) tokens: Option<Vec<u64>>,
}

/// How many blocks norms are of, and how surely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocks {
    /// llama.cpp measures every block.
    OfImportanceMatrix(usize),
    /// A file under the weights' own names may hold a part of them.
    OfNormsFile(usize),
}

impl Norms {
    /// An empty set of norms, to be filled by [`insert`](Self::insert).
    pub fn new(source: Provenance) -> Self {
        Self {
            source,
            entries: BTreeMap::new(),
            sketches: None,
        }
    }

    /// Columns of the sketches that are there beside the norms.
    #[must_use]
    pub fn sketch_rank(&self) -> Option<usize> {
        self.sketches.as_ref().map(Sketches::rank)
    }

    /// Adds the norms of one weight, `[in_features]`, under the weight's own name; replaces those that were there.
    ///
    /// # Errors
    /// [`Error::Value`] if a norm is negative or not finite, [`Error::Malformed`] if there are none.
    pub fn insert(&mut self, weight: impl Into<String>, norms: Vec<f32>) -> Result<(), Error> {
        let weight = weight.into();
        self.are_sums_of_squares(&weight, 0, &norms)?;
        self.put(weight, None, norms)
    }

    /// Adds the norms of a weight of experts, `[in_features]` for each number in `tokens`, row-major: what each expert saw
    /// and over how many tokens. One row is the weight of one expert.
    ///
    /// # Errors
    /// As [`insert`](Self::insert); also [`Error::Malformed`] if `norms` is not that many rows, or is of no tokens and not 0.
    pub fn insert_experts(
        &mut self,
        weight: impl Into<String>,
        norms: Vec<f32>,
        tokens: Vec<u64>,
    ) -> Result<(), Error> {
        let weight = weight.into();
        self.are_sums_of_squares(&weight, 0, &norms)?;
        let experts = Some(tokens.len()).filter(|&experts| experts != 1);
        self.put(weight.clone(), experts, norms)?;
        self.put_tokens(&weight, tokens)
    }

    /// Adds how many tokens went into each row of norms that are there already.
    pub(super) fn put_tokens(&mut self, weight: &str, tokens: Vec<u64>) -> Result<(), Error> {
        let Some(entry) = self.entries.get_mut(weight) else {
            return Ok(());
        };
        let problem = if tokens.len() != entry.experts.unwrap_or(1) {
            format!("has {} numbers of tokens", tokens.len())
        } else {
            let rows = entry.values.chunks_exact(entry.values.len() / tokens.len());
            let mut rows = rows.zip(&tokens);
            match rows.position(|(row, &tokens)| tokens == 0 && row.iter().any(|&n| n != 0.0)) {
                Some(row) => format!("row {row} has sums over no tokens"),
                None => {
                    entry.tokens = Some(tokens);
                    return Ok(());
                }
            }
        };
        let (path, format) = (&self.source.path, self.source.format);
        let what = format!("`{}` {problem}", shown(weight));
        Err(Error::malformed(path, format, what))
    }

    /// How many tokens went into the norms of a weight of experts, where that is known. `expert` is as for
    /// [`get`](Self::get).
    #[must_use]
    pub fn tokens(&self, weight: &str, expert: Option<usize>) -> Option<u64> {
        let tokens = self.entries.get(weight)?.tokens.as_ref()?;
        tokens.get(expert.unwrap_or(0)).copied()
    }

    /// The only way in. The values are not looked at: those of a file may be damaged where nobody asks for them, so they
    /// are checked when they are looked up.
    pub(super) fn put(
        &mut self,
        name: String,
        experts: Option<usize>,
        values: Vec<f32>,
    ) -> Result<(), Error> {
        let malformed = |what: String| {
            Error::malformed(
                &self.source.path,
                self.source.format,
                format!("`{}` {what}", shown(&name)),
            )
        };
        if values.is_empty() {
            return Err(malformed("holds no values".into()));
        }
        if let Some(experts) = experts
            && (experts == 0 || !values.len().is_multiple_of(experts))
        {
            return Err(malformed(format!(
                "holds {} values for {experts} experts",
                values.len()
            )));
        }
        let entry = Entry {
            experts,
            values,
            means: None,
            tokens: None,
        };
        self.entries.insert(name, entry);
        Ok(())
    }

    /// Checks that values are finite and not negative; `first` is the column of the first of them.
    fn are_sums_of_squares(&self, name: &str, first: usize, values: &[f32]) -> Result<(), Error> {
        match values.iter().position(|v| !(v.is_finite() && *v >= 0.0)) {
            None => Ok(()),
            Some(at) => Err(Error::Value {
                path: self.source.path.clone(),
                tensor: name.to_owned(),
                column: first + at,
                value: values[at],
            }),
        }
    }

    /// [`put`](Self::put) for a name that must be new: a file that has a name twice is damaged.
    pub(super) fn put_new(
        &mut self,
        name: String,
        experts: Option<usize>,
        values: Vec<f32>,
    ) -> Result<(), Error> {
        if self.entries.contains_key(&name) {
            let what = format!("`{}` is there twice", shown(&name));
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
    /// [`Error::Length`] and [`Error::Experts`] where the source has norms of another shape: they are probably another
    /// model's. [`Error::Value`] for a norm that is not a sum of squares; what nobody asks for may be damaged.
    pub fn get(
        &self,
        weight: &str,
        expert: Option<usize>,
        in_features: usize,
    ) -> Result<Lookup<'_>, Error> {
        match self.find(weight, expert) {
            Some((name, entry, expert)) => {
                let own = name == weight;
                self.select(name, entry, own, weight, expert, in_features)
            }
            None => Ok(Lookup::Absent),
        }
    }

    /// The entry that serves a weight, with its name, and the expert to take of it.
    pub(super) fn find(
        &self,
        weight: &str,
        expert: Option<usize>,
    ) -> Option<(&str, &Entry, Option<usize>)> {
        let own = std::iter::once((weight.to_owned(), expert));
        own.chain(imatrix::candidates(weight, expert))
            .find_map(|(name, expert)| {
                let (name, entry) = self.entries.get_key_value(&name)?;
                Some((name.as_str(), entry, expert))
            })
    }

    /// The name under which llama.cpp's importance matrix serves a weight; `None` for one that has norms of its own name,
    /// or none.
    pub(crate) fn mapped_name(&self, weight: &str, expert: Option<usize>) -> Option<&str> {
        let (name, ..) = self.find(weight, expert)?;
        (name != weight).then_some(name)
    }

    /// How many blocks there are norms of: one more than the highest number in a name. `None` where no name has one.
    pub(crate) fn blocks(&self) -> Option<Blocks> {
        let of_llama = self.entries.keys().filter_map(|name| imatrix::block(name));
        if let Some(last) = of_llama.max() {
            return Some(Blocks::OfImportanceMatrix(last + 1));
        }
        let own = self.entries.keys().filter(|name| !is_of_side_decoder(name));
        let numbers = own.filter_map(|name| block(name)?.number.parse::<usize>().ok());
        numbers.max().map(|last| Blocks::OfNormsFile(last + 1))
    }

    /// Where among an entry's values those of one matrix are.
    pub(super) fn place(
        &self,
        name: &str,
        entry: &Entry,
        own: bool,
        weight: &str,
        expert: Option<usize>,
        in_features: usize,
    ) -> Result<Range<usize>, Error> {
        let (path, tensor, weight) = (self.source.path.clone(), name.to_owned(), weight.to_owned());
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
        Ok(first..first + per_expert)
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
        let place = self.place(name, entry, own, weight, expert, in_features)?;
        let norms = &entry.values[place.clone()];
        self.are_sums_of_squares(name, place.start, norms)?;
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

    /// The number of weights that have norms.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no weight has norms.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
