//! As much of a text as is needed, as tokens: the same tokens that the whole text would give.
//!
//! A text can be cut between a word and the space before the next one, if no token of the vocabulary has a letter before
//! a space: then no token can lie across the cut, and both BPE and unigram models treat what is before it as if nothing
//! followed. (Merges that do not exist cannot be made, and the best way through a lattice that has a single node at the
//! cut is the best way to it.) What a tokenizer does before that, to normalise and to split, looks no further than the
//! end of a word in every tokenizer that we know. For a vocabulary with such tokens, for models of another kind, and for a text
//! without such a place, the whole text is encoded, if it is no longer than [`WHOLE`]. Of a longer one, the part that is encoded
//! goes [`MARGIN`] tokens further than what is wanted: merges reach back a few tokens from where a text is cut.

use tokenizers::{ModelWrapper, Result, Tokenizer};

use super::bounds::{MOST_AT_ONCE, encode};
use super::tokens::Prefix;

/// Texts that show what is put before a text. A vocabulary may have none of a text's characters, and no token for the unknown.
const SOME_TEXTS: [&str; 4] = ["a", "1", "the", "\u{4e00}"];

/// Bytes that are taken for a token at first: English has four or five.
const BYTES_A_TOKEN: usize = 8;

/// The most bytes of a text without a safe cut that are encoded whole where fewer would do.
const WHOLE: usize = 1 << 20;

/// Tokens before an unsafe cut that are not used: the cut may have changed them.
const MARGIN: usize = 1024;

/// The first tokens of a text, at most `limit`, without what the tokenizer puts before and behind a text.
pub(super) fn tokens(tokenizer: &Tokenizer, text: &str, limit: usize) -> Result<Vec<u32>> {
    let mut bytes = limit.saturating_mul(BYTES_A_TOKEN);
    // Looking through the vocabulary takes a moment, too.
    if bytes < text.len() && splits_at_words(tokenizer) {
        // A place that is far away is of no use: all before it would be encoded.
        let near = |bytes: usize| move |cut: &usize| *cut <= bytes.saturating_mul(4).max(WHOLE);
        while let Some(cut) = cut_from(text, bytes).filter(near(bytes)) {
            let mut found = encode(tokenizer, &text[..cut], false)?.get_ids().to_vec();
            if found.len() >= limit {
                found.truncate(limit);
                return Ok(found);
            }
            bytes = 4 * cut;
        }
    }
    // Where nothing says that a cut is safe, a long text is cut far behind the last token that is wanted.
    let mut bytes = limit.saturating_add(MARGIN).saturating_mul(BYTES_A_TOKEN);
    while text.len() > WHOLE && bytes < MOST_AT_ONCE {
        let cut = text.floor_char_boundary(bytes);
        let mut found = encode(tokenizer, &text[..cut], false)?.get_ids().to_vec();
        if found.len() >= limit + MARGIN {
            found.truncate(limit);
            return Ok(found);
        }
        bytes *= 4;
    }
    let mut all = encode(tokenizer, text, false)?.get_ids().to_vec();
    all.truncate(limit);
    Ok(all)
}

/// What the tokenizer puts before a text.
pub(super) fn prefix(tokenizer: &Tokenizer) -> Result<Prefix> {
    for text in SOME_TEXTS {
        let encoding = encode(tokenizer, text, true)?;
        // Only what the post-processor adds is marked: a special token within a text is the text's own.
        let mask = encoding.get_special_tokens_mask();
        let before = mask.iter().take_while(|&&added| added == 1).count();
        // With no token of the text there is no telling what stands before it from what stands behind it.
        if before < mask.len() {
            return Ok(Prefix::new(&encoding.get_ids()[..before], tokenizer));
        }
    }
    Ok(Prefix::default())
}

/// The first place from a byte on where a text can be cut: after the last letter of a word, before a space and a letter.
fn cut_from(text: &str, bytes: usize) -> Option<usize> {
    let letter = |byte: u8| byte.is_ascii_alphabetic();
    let rest = text.as_bytes().get(bytes.max(1) - 1..)?;
    let found = rest
        .windows(3)
        .position(|three| letter(three[0]) && three[1] == b' ' && letter(three[2]))?;
    Some(bytes.max(1) + found)
}

/// Whether no token can lie across the end of a word.
fn splits_at_words(tokenizer: &Tokenizer) -> bool {
    if !matches!(
        tokenizer.get_model(),
        ModelWrapper::BPE(_) | ModelWrapper::Unigram(_)
    ) {
        return false;
    }
    // As a byte, and as sentencepiece and GPT-2 write it.
    let space = |c: char| matches!(c, ' ' | '\u{2581}' | '\u{120}');
    let crosses = |token: &String| {
        let mut before = ' ';
        token.chars().any(|c| {
            let found = before.is_ascii_alphabetic() && space(c);
            before = c;
            found
        })
    };
    !tokenizer.get_vocab(true).keys().any(crosses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Text;

    fn tokenizer() -> Tokenizer {
        Tokenizer::from_file("examples/tiny-llama/tokenizer.json").unwrap()
    }

    /// Models as BPE of sentencepiece (no pre-tokenizer, spaces as a letter) and unigram, over the letters and some words.
    fn others() -> Vec<Tokenizer> {
        let chars = || (' '..='~').filter(|&c| c != ' ').chain(['\u{2581}', '\n']);
        let mut vocab: Vec<String> = chars().map(String::from).collect();
        vocab.extend(
            [
                "th",
                "the",
                "an",
                "in",
                "er",
                "\u{2581}the",
                "\u{2581}\u{2581}",
            ]
            .map(String::from),
        );
        let scores: Vec<_> = vocab
            .iter()
            .map(|t| serde_json::json!([t, -1.0 - 1.0 / t.len() as f64]))
            .collect();
        let ids: serde_json::Map<_, _> = vocab
            .iter()
            .zip(0..)
            .map(|(t, i)| (t.clone(), i.into()))
            .collect();
        let merges = [
            ["t", "h"],
            ["th", "e"],
            ["a", "n"],
            ["i", "n"],
            ["e", "r"],
            ["\u{2581}", "the"],
            ["\u{2581}", "\u{2581}"],
        ];
        let normalizer = serde_json::json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}]});
        let bpe = serde_json::json!({"type": "BPE", "vocab": ids, "merges": merges, "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false});
        let unigram = serde_json::json!({"type": "Unigram", "vocab": scores, "unk_id": 0, "byte_fallback": false});
        [bpe, unigram]
            .map(|model| {
                let file = serde_json::json!({"version": "1.0", "added_tokens": [], "normalizer": normalizer, "model": model,
                    "pre_tokenizer": null, "post_processor": null, "decoder": null, "truncation": null, "padding": null});
                Tokenizer::from_bytes(file.to_string()).unwrap()
            })
            .into()
    }

    #[test]
    fn as_many_tokens_as_are_wanted_are_those_that_the_whole_text_begins_with() {
        let prose = Text::calibration().content.repeat(3);
        let strange = "   a\n\n\n b \t\t c d  e\u{301} f\r\n\r\ng, h. I'll 12 34 x".repeat(300);
        let unbroken = "\u{4e00}\u{4e8c}\u{4e09}".repeat(3000);
        let spaces = format!("a{}b c {}", " ".repeat(5000), "d e\n".repeat(2000));
        let mut all = others();
        all.push(tokenizer());
        for (number, tokenizer) in all.iter().enumerate() {
            assert!(splits_at_words(tokenizer), "{number}");
            for text in [&prose, &strange, &unbroken, &spaces] {
                let whole = tokenizer.encode_fast(text.as_str(), false).unwrap();
                for limit in [0, 1, 2, 7, 64, 500, 1111, usize::MAX] {
                    let found = tokens(tokenizer, text, limit).unwrap();
                    let wanted = &whole.get_ids()[..limit.min(whole.len())];
                    assert!(
                        found == wanted,
                        "tokenizer {number}, {limit} tokens of {:?}",
                        &text[..9]
                    );
                }
            }
        }
    }

    #[test]
    fn a_long_text_without_a_space_is_not_encoded_whole() {
        let text = "\u{4e00}\u{4e8c}\u{4e09}abcdefghij".repeat(120_000);
        assert!(text.len() > 2 * WHOLE);
        for tokenizer in others() {
            let found = tokens(&tokenizer, &text, 500).unwrap();
            let beginning = text.floor_char_boundary(1 << 16);
            let longer = encode(&tokenizer, &text[..beginning], true).unwrap();
            assert_eq!(found, longer.get_ids()[..500]);
        }
        let longer = text.repeat(5);
        let error = tokens(&tokenizer(), &longer, usize::MAX).unwrap_err();
        assert!(error.is::<super::super::bounds::TooLong>(), "{error}");
    }

    #[test]
    fn a_vocabulary_with_a_token_across_two_words_is_noticed() {
        let mut tokenizer = tokenizer();
        let across = tokenizers::AddedToken::from("of the", false);
        tokenizer.add_tokens([across]).unwrap();
        assert!(!splits_at_words(&tokenizer));
        let text = "most of the time ".repeat(500);
        let whole = tokenizer.encode_fast(text.as_str(), false).unwrap();
        let found = tokens(&tokenizer, &text, 50).unwrap();
        assert_eq!(found, whole.get_ids()[..50]);
    }
}
