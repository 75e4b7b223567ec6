//! The tokens of a text as the model is used to them: in windows that begin with what its tokenizer puts before a text.
//!
//! Gemma, Llama and Mistral were trained with a token at the beginning (BOS), and are worse without it: the perplexity of
//! Gemma 3 270M on news is 50 where no window but the first has it, and 21 where all have. What is put before a text is
//! what the post-processor of tokenizer.json says, as in transformers 5, which does not look at `add_bos_token` in
//! tokenizer_config.json where there is a tokenizer.json (but for two classes of tokenizers, see docs/calibration.md).

use std::collections::BTreeMap;
use std::fmt;

use tokenizers::Tokenizer;

use crate::untrusted::shown;

/// What is written where a tokenizer puts nothing before a text.
const NO_PREFIX: &str = "none";

/// What a tokenizer puts before a text: no token or BOS, seldom more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    ids: Vec<u32>,
    names: Vec<String>,
}

impl Prefix {
    /// Puts tokens together with what the vocabulary calls them.
    pub(super) fn new(ids: &[u32], tokenizer: &Tokenizer) -> Self {
        let name = |&id: &u32| tokenizer.id_to_token(id).unwrap_or_default();
        Self {
            ids: ids.to_vec(),
            names: ids.iter().map(name).collect(),
        }
    }

    /// The tokens.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The first position of a window that is predicted: the first token of the text, or the second where nothing is before it.
    #[must_use]
    pub(crate) fn predicted_from(&self) -> usize {
        self.ids.len().max(1)
    }
}

/// For people, reports and files of norms: ``<bos>` (2)``, or `none`.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str(NO_PREFIX);
        }
        for (index, (id, name)) in self.ids.iter().zip(&self.names).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}`{}` ({id})", shown(name))?;
        }
        Ok(())
    }
}

/// What a model saw, for people: windows of so many tokens, and what they begin with, if anything. `prefix` is a [`Prefix`] as it
/// is written.
#[must_use]
pub fn windows_of(context: usize, prefix: &str) -> String {
    match prefix {
        "" | NO_PREFIX => format!("windows of {context}"),
        _ => format!("windows of {context} that begin with {prefix}"),
    }
}

/// The same, as the metadata of norms say it.
#[must_use]
pub fn windows_said(metadata: &BTreeMap<String, String>) -> Option<String> {
    let context = metadata.get("context")?.parse().ok()?;
    let prefix = metadata.get("prefix").map_or("", String::as_str);
    Some(windows_of(context, prefix))
}

/// A text's own tokens, and those that the tokenizer puts before a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tokens {
    /// What every window begins with.
    pub prefix: Prefix,
    /// The text's own.
    pub ids: Vec<u32>,
}

impl Tokens {
    /// Windows of `context` tokens, each the prefix and as much of the text as fits behind it: `limit` tokens in all, or fewer
    /// where the text ends. The last window may be shorter. None where a window has no room for text.
    #[must_use]
    pub(crate) fn windows(&self, context: usize, limit: usize) -> Vec<Vec<u32>> {
        let prefix = self.prefix.ids();
        let room = context.saturating_sub(prefix.len());
        if room == 0 {
            return Vec::new();
        }
        let mut left = limit;
        let mut windows = Vec::new();
        for of_text in self.ids.chunks(room) {
            let wanted = left.saturating_sub(prefix.len()).min(of_text.len());
            if wanted == 0 {
                break;
            }
            windows.push([prefix, &of_text[..wanted]].concat());
            left -= prefix.len() + wanted;
        }
        windows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(prefix: &[u32], text: std::ops::Range<u32>) -> Tokens {
        Tokens {
            prefix: Prefix {
                ids: prefix.to_vec(),
                names: prefix.iter().map(|_| "<bos>\u{1b}".to_owned()).collect(),
            },
            ids: text.collect(),
        }
    }

    #[test]
    fn every_window_begins_with_the_prefix_and_is_no_longer_for_it() {
        let found = tokens(&[90, 91], 0..7).windows(5, usize::MAX);
        let wanted: [&[u32]; 3] = [&[90, 91, 0, 1, 2], &[90, 91, 3, 4, 5], &[90, 91, 6]];
        assert_eq!(found, wanted);
        assert_eq!(
            tokens(&[], 0..5).windows(3, usize::MAX),
            [&[0, 1, 2][..], &[3, 4]]
        );
    }

    #[test]
    fn a_limit_counts_all_tokens_and_leaves_no_prefix_without_text() {
        let windows = |limit| tokens(&[90], 0..9).windows(4, limit);
        assert_eq!(windows(6), [&[90, 0, 1, 2][..], &[90, 3]]);
        assert_eq!(windows(5), [[90, 0, 1, 2]]);
        assert!(windows(1).is_empty());
        assert_eq!(tokens(&[], 0..9).windows(4, 5), [&[0, 1, 2, 3][..], &[4]]);
    }

    #[test]
    fn a_window_without_room_for_text_is_none() {
        assert!(tokens(&[90, 91], 0..9).windows(2, usize::MAX).is_empty());
    }

    #[test]
    fn a_prefix_is_shown_by_name_and_number_and_escaped() {
        assert_eq!(Prefix::default().to_string(), "none");
        let shown = tokens(&[2, 3], 0..0).prefix.to_string();
        assert_eq!(shown, "`<bos>\\u{1b}` (2), `<bos>\\u{1b}` (3)");
    }
}
