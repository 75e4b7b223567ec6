//! Norms by the name of their weight, checked when they are added.

use std::collections::BTreeMap;

use super::error::Error;
use super::lookup::Lookup;
use super::provenance::{Format, Provenance};
use crate::names::imatrix;
use crate::untrusted::shown;

/// The column norms of a model's weights, and where they come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Norms {
    /// Where they come from.
    pub source: Provenance,
    pub(super) entries: BTreeMap<String, Entry>,
}

/// The norms under one name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// `Some(e)`: `[e, in_features]`. `None`: a vector, which in an importance matrix may be several experts' end to end.
    pub(super) experts: Option<usize>,
    pub(super) values: Vec<f32>,
    /// The tokens that went into each row, where that is known and differs from weight to weight.
    pub(super) tokens: Option<Vec<u64>>,
}

impl Norms {
    /// An empty set of norms, to be filled by [`insert`](Self::insert).
    pub fn new(source: Provenance) -> Self {
        Self {
            source,
            entries: BTreeMap::new(),
        }
    }

    /// Adds the norms of one weight, `[in_features]`, under the weight's own name; replaces those that were there.
    ///
    /// # Errors
    /// [`Error::Value`] if a norm is negative or not finite, [`Error::Malformed`] if there are none.
    pub fn insert(&mut self, weight: impl Into<String>, norms: Vec<f32>) -> Result<(), Error> {
        self.put(weight.into(), None, norms)
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

    /// The only way in, so every stored norm has been checked.
    fn put(&mut self, name: String, experts: Option<usize>, values: Vec<f32>) -> Result<(), Error> {
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
        if let Some(column) = values.iter().position(|v| !(v.is_finite() && *v >= 0.0)) {
            return Err(Error::Value {
                path: self.source.path.clone(),
                tensor: name,
                column,
                value: values[column],
            });
        }
        let entry = Entry {
            experts,
            values,
            tokens: None,
        };
        self.entries.insert(name, entry);
        Ok(())
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
    /// model's.
    pub fn get(
        &self,
        weight: &str,
        expert: Option<usize>,
        in_features: usize,
    ) -> Result<Lookup<'_>, Error> {
        let own = std::iter::once((weight.to_owned(), expert, true));
        let mapped = imatrix::candidates(weight, expert)
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

    /// The number of weights that have norms.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no weight has norms.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
