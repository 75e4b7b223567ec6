//! Globs over the names of tensors.

use std::collections::BTreeSet;

use globset::{GlobBuilder, GlobMatcher, GlobSet};
use serde::{Deserialize, Serialize};

use crate::untrusted::shown;

/// A glob that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The syntax of a glob is wrong.
    #[error(
        "`{}` is not a valid glob: {}. `*` matches anything, `?` one character, `[ab]` one of these characters, \
         `{{a,b}}` one of these words",
        shown(glob),
        shown(reason)
    )]
    Glob {
        /// The glob as it was given.
        glob: String,
        /// What is wrong with its syntax.
        reason: String,
    },
    /// More globs than are compiled.
    #[error("{_0} globs are too many: at most {MAX_GLOBS} are taken. Combine them, as `{{a,b}}`")]
    TooMany(
        /// How many were given.
        usize,
    ),
}

/// The longest glob, in bytes; names of tensors have a few dozen.
const MAX_GLOB: usize = 4096;

/// The most globs of a list. Each is compiled.
const MAX_GLOBS: usize = 1024;

/// Which tensors are asked for, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "FilterRecord", into = "FilterRecord")]
pub struct NameFilter {
    /// These names alone, whatever the globs say; none: what the globs say.
    names: Option<BTreeSet<String>>,
    pub(super) include: Vec<Glob>,
    pub(super) exclude: Vec<Glob>,
}

/// A [`NameFilter`] in a record.
#[derive(Serialize, Deserialize)]
struct FilterRecord {
    include: Vec<String>,
    exclude: Vec<String>,
    names: Option<BTreeSet<String>>,
}

impl From<NameFilter> for FilterRecord {
    fn from(filter: NameFilter) -> Self {
        let (include, exclude) = filter.globs();
        Self {
            include,
            exclude,
            names: filter.names,
        }
    }
}

impl TryFrom<FilterRecord> for NameFilter {
    type Error = Error;

    fn try_from(record: FilterRecord) -> Result<Self, Error> {
        match record.names {
            Some(names) => Ok(Self::of_names(names)),
            None => Self::new(&record.include, &record.exclude),
        }
    }
}

/// A glob over whole names, `*` matching dots too.
#[derive(Clone, Debug)]
pub(super) struct Glob {
    /// The glob as it was given.
    pub(super) glob: String,
    matcher: GlobMatcher,
}

impl PartialEq for Glob {
    fn eq(&self, other: &Self) -> bool {
        self.glob == other.glob
    }
}

impl Glob {
    fn new(glob: &str) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Glob {
            glob: glob.to_owned(),
            reason,
        };
        if glob.len() > MAX_GLOB {
            return Err(wrong(format!("it has more than {MAX_GLOB} bytes")));
        }
        // Set explicitly, because the defaults differ on Windows; a name is not a path.
        let built = GlobBuilder::new(glob)
            .literal_separator(false)
            .backslash_escape(true)
            .build();
        let built = built.map_err(|e| wrong(e.kind().to_string()))?;
        // A matcher panics where its regular expression is refused, as that of hundreds of nested braces is. A set says so.
        if GlobSet::builder().add(built.clone()).build().is_err() {
            return Err(wrong(
                "it is too complex: nest fewer braces, or give several globs".to_owned(),
            ));
        }
        Ok(Self {
            glob: glob.to_owned(),
            matcher: built.compile_matcher(),
        })
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        self.matcher.is_match(name)
    }
}

impl NameFilter {
    /// Whether tensors are chosen by name, in place of the default set.
    pub(crate) fn has_include(&self) -> bool {
        !self.include.is_empty()
    }

    /// Whether there are globs.
    pub(crate) fn has_globs(&self) -> bool {
        self.has_include() || !self.exclude.is_empty()
    }

    /// Globs over whole tensor names, `*` matching dots too. No `include` means the default set.
    ///
    /// # Errors
    /// [`Error::Glob`] for the first whose syntax is wrong, [`Error::TooMany`].
    pub fn new<S: AsRef<str>>(include: &[S], exclude: &[S]) -> Result<Self, Error> {
        let patterns = |globs: &[S]| {
            if globs.len() > MAX_GLOBS {
                return Err(Error::TooMany(globs.len()));
            }
            globs
                .iter()
                .map(|g| Glob::new(g.as_ref()))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            names: None,
            include: patterns(include)?,
            exclude: patterns(exclude)?,
        })
    }

    /// The tensors of these names, and no others.
    pub fn of_names(names: impl IntoIterator<Item = String>) -> Self {
        Self {
            names: Some(names.into_iter().collect()),
            ..Self::default()
        }
    }

    /// The globs as they were given, or those of the names: of what is included, and of what is excluded.
    pub(crate) fn globs(&self) -> (Vec<String>, Vec<String>) {
        let given = |globs: &[Glob]| globs.iter().map(|glob| glob.glob.clone()).collect();
        match &self.names {
            Some(names) => (names.iter().map(|name| escaped(name)).collect(), Vec::new()),
            None => (given(&self.include), given(&self.exclude)),
        }
    }

    /// Whether one of these globs matches a name; it is one that was given.
    pub(crate) fn glob_matches(&self, glob: &str, name: &str) -> bool {
        let mut all = self.include.iter().chain(&self.exclude);
        all.any(|known| known.glob == glob && known.matches(name))
    }

    /// Whether a name matches what is included (any does, if nothing is) and not what is excluded.
    pub(crate) fn chooses(&self, name: &str) -> bool {
        let included = self.is_default() || self.includes(name);
        included && !self.exclude.iter().any(|glob| glob.matches(name))
    }

    /// Whether the default set is asked for.
    pub(super) fn is_default(&self) -> bool {
        self.names.is_none() && self.include.is_empty()
    }

    /// Whether the name is among those that are asked for; not to be asked of the default set.
    pub(super) fn includes(&self, name: &str) -> bool {
        match &self.names {
            Some(names) => names.contains(name),
            None => self.include.iter().any(|glob| glob.matches(name)),
        }
    }
}

/// A glob that matches this text alone.
pub(crate) fn escaped(text: &str) -> String {
    globset::escape(text)
}

/// How often a glob matched; one that matches nothing is misspelt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GlobUse {
    /// The glob as it was given.
    pub glob: String,
    /// How many tensors it matches by name.
    pub matched: usize,
    /// How many of these are pruned.
    pub pruned: usize,
    /// How many of these would be pruned, and are not because of an exclude glob.
    pub excluded: usize,
}
