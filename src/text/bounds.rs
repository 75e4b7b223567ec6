//! What a stranger's tokenizer.json may do to a text: how much longer it may make it, how long it may take, and how much text it
//! gets at a time.
//!
//! The tokenizers library holds 17 bytes for each byte of a normalised text and about 140 for each byte that becomes tokens. A
//! file of a few hundred bytes can have it make a text ten million times longer: by normalizers that replace a letter with ten,
//! one after the other, by pre-tokenizers that write bytes as letters again and again, by a template that repeats the text. So
//! what the file asks for is checked before it is built, the normalizers run one by one, each only where its result is known
//! to be bounded, and texts are encoded in growing parts, so that what takes too long is noticed while it is short.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;
use tokenizers::normalizers::{NormalizerWrapper, Precompiled};
use tokenizers::{Encoding, NormalizedString, Normalizer as _, Result, Tokenizer};

/// The most bytes of a text that are encoded at a time.
pub(super) const MOST_AT_ONCE: usize = 8 << 20;

/// How many times longer a text may become by normalisation: a space of one byte has three as sentencepiece writes it.
const GROWTH: usize = 4;

/// Bytes that it may have beside that.
const MORE: usize = 256;

/// The most normalizers, pre-tokenizers and post-processors, each with those within a sequence; files in use have up to ten.
const MOST_STEPS: usize = 64;

/// The most pre-tokenizers that make a text longer; files in use have one.
const MOST_GROWING: usize = 2;

/// The most tokens that are put around a text.
const MOST_ADDED: usize = 256;

/// Pre-tokenizers that split a text, and change nothing.
const SPLITS: [&str; 9] = [
    "BertPreTokenizer",
    "Delimiter",
    "Digits",
    "FixedLength",
    "Punctuation",
    "Split",
    "UnicodeScripts",
    "Whitespace",
    "WhitespaceSplit",
];

/// Bytes of a text that a pre-normalizer gets at a time, where only its result's length is wanted.
const PIECE: usize = 16 << 10;

/// How long the encoding of a text may take: so long, and so long for each byte. A build for tests takes a tenth of that.
const LONGEST: Duration = Duration::from_secs(2);
const LONGEST_A_BYTE: Duration = Duration::from_micros(20);

/// Bytes that are encoded first, to see how long it takes; then so many times more, and so on.
const FIRST: usize = 64;
const TIMES: usize = 4;

/// A text that is longer than [`MOST_AT_ONCE`].
#[derive(Debug, thiserror::Error)]
#[error("{bytes} bytes of text are too many")]
pub(super) struct TooLong {
    pub(super) bytes: usize,
}

/// The parts of a tokenizer.json that decide how long a text can become.
#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    added_tokens: Option<Vec<Added>>,
    #[serde(default)]
    normalizer: Option<Value>,
    #[serde(default)]
    pre_tokenizer: Option<Value>,
    #[serde(default)]
    post_processor: Option<Value>,
}

#[derive(Deserialize)]
struct Added {
    #[serde(default)]
    content: String,
    /// Whether its text is normalised when the file is read.
    #[serde(default = "yes")]
    normalized: bool,
}

const fn yes() -> bool {
    true
}

/// Checks a tokenizer.json before it is built: building one runs its normalizers already, over the tokens that were added.
pub(super) fn check(json: &[u8]) -> Result<()> {
    let parts: Parts = serde_json::from_slice(json)?;
    if let Some(value) = &parts.pre_tokenizer {
        let mut kinds = Vec::new();
        leaves(value, "pretokenizers", &mut kinds)?;
        let splits = |leaf: &&&Value| {
            leaf["type"]
                .as_str()
                .is_some_and(|kind| SPLITS.contains(&kind))
        };
        let growing = kinds.len() - kinds.iter().filter(splits).count();
        if growing > MOST_GROWING {
            return Err(
                format!("it has {growing} pre-tokenizers that each make a text longer").into(),
            );
        }
    }
    if let Some(value) = &parts.post_processor {
        let mut templates = Vec::new();
        leaves(value, "processors", &mut templates)?;
        check_templates(&templates)?;
    }
    let normalizer = parts.normalizer.filter(|value| !value.is_null());
    let Some(normalizer) = normalizer else {
        return Ok(());
    };
    let normalizer: NormalizerWrapper = serde_json::from_value(normalizer)?;
    let steps = steps(&normalizer)?;
    for token in parts
        .added_tokens
        .iter()
        .flatten()
        .filter(|token| token.normalized)
    {
        check_growth(&steps, &token.content)?;
    }
    Ok(())
}

/// What a value and the lists of this name within it hold, in their order.
fn leaves<'a>(value: &'a Value, list: &str, found: &mut Vec<&'a Value>) -> Result<()> {
    match value.get(list).and_then(Value::as_array) {
        Some(several) => several
            .iter()
            .try_for_each(|value| leaves(value, list, found)),
        None if found.len() < MOST_STEPS => {
            found.push(value);
            Ok(())
        }
        None => Err(format!("it has more than {MOST_STEPS} {list}").into()),
    }
}

/// Templates put a few tokens around a text, which they have once.
fn check_templates(templates: &[&Value]) -> Result<()> {
    let mut added = 0_usize;
    for template in templates {
        let Some(single) = template.get("single") else {
            continue;
        };
        let ids = |id: &str| {
            template["special_tokens"][id]["ids"]
                .as_array()
                .map_or(1, Vec::len)
        };
        let pieces: Vec<Option<&str>> = match single {
            // `None` stands for the text.
            Value::String(text) => (text.split(' '))
                .map(|word| (!word.starts_with('$')).then_some(word))
                .collect(),
            Value::Array(pieces) => (pieces.iter())
                .map(|piece| piece["SpecialToken"]["id"].as_str())
                .collect(),
            _ => continue,
        };
        if pieces.iter().filter(|piece| piece.is_none()).count() > 1 {
            return Err("its post-processor repeats the text".into());
        }
        for id in pieces.into_iter().flatten() {
            added = added.saturating_add(ids(id));
        }
    }
    if added > MOST_ADDED {
        return Err(format!("its post-processor puts {added} tokens around a text, and at most {MOST_ADDED} are taken").into());
    }
    Ok(())
}

/// The normalizers, those within sequences too, in their order.
fn steps(normalizer: &NormalizerWrapper) -> Result<Vec<&NormalizerWrapper>> {
    fn add<'a>(
        normalizer: &'a NormalizerWrapper,
        found: &mut Vec<&'a NormalizerWrapper>,
    ) -> Result<()> {
        match normalizer {
            NormalizerWrapper::Sequence(several) => {
                several.as_ref().iter().try_for_each(|one| add(one, found))
            }
            _ if found.len() < MOST_STEPS => {
                found.push(normalizer);
                Ok(())
            }
            _ => Err(format!("it has more than {MOST_STEPS} normalizers").into()),
        }
    }
    let mut found = Vec::new();
    add(normalizer, &mut found)?;
    Ok(found)
}

/// Runs the normalizers one by one over a text, none before it is clear how long its result will be.
fn check_growth(steps: &[&NormalizerWrapper], text: &str) -> Result<()> {
    let most = text.len().saturating_mul(GROWTH) + MORE;
    let bounded = |len: usize| {
        if len <= most {
            Ok(())
        } else {
            Err(format!(
                "its normalizer makes a text more than {GROWTH} times as long, {} bytes of {} or more",
                len,
                text.len()
            ))
        }
    };
    let mut text = text.to_owned();
    for step in steps {
        text = match step {
            NormalizerWrapper::Replace(replace) => {
                // How often it matches: by what it leaves of the text with nothing and with one letter in a match's place.
                let mut probe = replace.clone();
                probe.content = String::new();
                let left = normalised(&text, |text| probe.normalize(text))?.len();
                probe.content = "x".to_owned();
                let matches = normalised(&text, |text| probe.normalize(text))?
                    .len()
                    .saturating_sub(left);
                bounded(
                    matches
                        .saturating_mul(replace.content.len())
                        .saturating_add(left),
                )?;
                normalised(&text, |text| replace.normalize(text))?
            }
            NormalizerWrapper::Prepend(prepend) => {
                bounded(text.len().saturating_add(prepend.prepend.len()))?;
                normalised(&text, |text| prepend.normalize(text))?
            }
            // What the others make of a text's middle does not depend on its ends.
            other => {
                let mut whole = String::new();
                let mut rest = text.as_str();
                while !rest.is_empty() {
                    let piece;
                    (piece, rest) = rest.split_at(rest.floor_char_boundary(PIECE));
                    if let NormalizerWrapper::Precompiled(map) = other {
                        bounded(whole.len() + mapped(map, piece, most))?;
                    }
                    whole += &normalised(piece, |text| other.normalize(text))?;
                    bounded(whole.len())?;
                }
                whole
            }
        };
    }
    Ok(())
}

/// A text after one normalizer.
fn normalised(text: &str, work: impl Fn(&mut NormalizedString) -> Result<()>) -> Result<String> {
    let mut normalised = NormalizedString::from(text);
    work(&mut normalised)?;
    Ok(normalised.get().to_owned())
}

/// A length that a map of characters does not exceed, or any number above `most`: it maps clusters of up to five bytes.
fn mapped(map: &Precompiled, text: &str, most: usize) -> usize {
    const LONGEST_CLUSTER: usize = 5;
    let mut len = 0_usize;
    for (at, c) in text.char_indices() {
        let ends = (c.len_utf8()..=LONGEST_CLUSTER.max(c.len_utf8())).map(|len| at + len);
        let longest = ends
            .filter_map(|end| map.transform(text.get(at..end)?))
            .map(str::len)
            .max();
        len = len.saturating_add(longest.unwrap_or(0).max(c.len_utf8()));
        if len > most {
            break;
        }
    }
    len
}

/// The tokens of a text; `special` asks for those that the tokenizer puts around it.
///
/// # Errors
/// [`TooLong`], and what says that the tokenizer makes too much of a text, or takes too long.
pub(super) fn encode(tokenizer: &Tokenizer, text: &str, special: bool) -> Result<Encoding> {
    if text.len() > MOST_AT_ONCE {
        let bytes = text.len();
        return Err(TooLong { bytes }.into());
    }
    let steps = tokenizer.get_normalizer().map_or(Ok(Vec::new()), steps)?;
    let mut len = FIRST;
    loop {
        let part = &text[..text.floor_char_boundary(len)];
        let start = Instant::now();
        check_growth(&steps, part)?;
        let encoding = tokenizer.encode_fast(part, special)?;
        let took = start.elapsed();
        let bytes = u32::try_from(part.len()).unwrap_or(u32::MAX);
        if took > LONGEST + LONGEST_A_BYTE * bytes {
            return Err(format!(
                "it takes {:.0} s for {bytes} bytes of text",
                took.as_secs_f64()
            )
            .into());
        }
        if part.len() == text.len() {
            return Ok(encoding);
        }
        len *= TIMES;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The example's tokenizer.json with some of its parts replaced.
    fn file(parts: &Value) -> Vec<u8> {
        let json = std::fs::read("examples/tiny-llama/tokenizer.json").unwrap();
        let mut file: Value = serde_json::from_slice(&json).unwrap();
        for (name, part) in parts.as_object().unwrap() {
            file[name] = part.clone();
        }
        file.to_string().into_bytes()
    }

    /// The number of tokens of a text, or why there are none.
    fn tokens(parts: &Value, text: &str) -> std::result::Result<usize, String> {
        let json = file(parts);
        let of = || {
            check(&json)?;
            Ok(encode(&Tokenizer::from_bytes(&json)?, text, true)?.len())
        };
        of().map_err(|error: tokenizers::Error| error.to_string())
    }

    fn replace(pattern: &Value, content: &str) -> Value {
        json!({"type": "Replace", "pattern": pattern, "content": content})
    }

    fn sequence(of: &[Value]) -> Value {
        json!({"type": "Sequence", "normalizers": of})
    }

    #[test]
    fn normalizers_that_make_a_text_far_longer_are_refused_before_they_do() {
        let a = json!({"String": "a"});
        let tenfold = replace(&a, &"a".repeat(10));
        let twice = sequence(&[tenfold.clone(), tenfold.clone()]);
        let behind = json!({"Regex": "a(?=(?s:.{50}))"});
        let normalizers = [
            sequence(&vec![tenfold.clone(); 7]),
            sequence(&[
                twice.clone(),
                sequence(&[twice.clone(), twice]),
                tenfold.clone(),
            ]),
            sequence(&vec![replace(&json!({"Regex": "a|"}), "aaaa"); 20]),
            sequence(&vec![replace(&json!({"Regex": ""}), "a"); 40]),
            sequence(&vec![replace(&behind, "aaaaaaaaaa"); 9]),
            replace(&json!({"String": "a"}), &"b".repeat(10_000_000)),
            sequence(&vec![json!({"type": "ByteLevel"}); 40]),
            sequence(&[replace(&a, "\u{fdfa}"), json!({"type": "NFKD"})]),
            sequence(&vec![
                sequence(&[
                    replace(&a, "\u{fdfa}"),
                    json!({"type": "NFKD"}),
                    replace(&json!({"Regex": "\\p{L}"}), "a")
                ]);
                9
            ]),
            sequence(&vec![
                json!({"type": "Prepend", "prepend": "a".repeat(1000)});
                60
            ]),
            sequence(&vec![json!({"type": "Lowercase"}); 1000]),
        ];
        for normalizer in normalizers {
            let shown = normalizer.to_string();
            let refused = tokens(&json!({"normalizer": normalizer}), &"banana ".repeat(100));
            let refused = refused.expect_err(&shown[..shown.len().min(200)]);
            assert!(refused.contains("normalizer"), "{refused}");
        }
        // The same text is none of the file's business: here it grows while the file is read.
        let added = json!([{"id": 0, "content": "a".repeat(50), "single_word": false, "lstrip": false, "rstrip": false, "normalized": true, "special": false}]);
        let parts = json!({"normalizer": sequence(&vec![tenfold; 7]), "added_tokens": added});
        assert!(tokens(&parts, "b").unwrap_err().contains("normalizer"));
    }

    #[test]
    fn normalizers_in_use_are_taken() {
        let space = |pattern: Value| replace(&pattern, "\u{2581}");
        let text = "The  quick brown fox\u{301} 東京 ﬁ ''x'' İ ".repeat(200);
        let normalizers = [
            json!(null),
            json!({"type": "NFC"}),
            sequence(&[
                json!({"type": "Prepend", "prepend": "\u{2581}"}),
                space(json!({"String": " "})),
            ]),
            sequence(&[
                replace(&json!({"String": "``"}), "\""),
                replace(&json!({"String": "''"}), "\""),
                json!({"type": "NFKD"}),
                json!({"type": "StripAccents"}),
                json!({"type": "Lowercase"}),
                space(json!({"Regex": " {2,}"})),
            ]),
            json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true}),
        ];
        for normalizer in normalizers {
            let parts = json!({"normalizer": normalizer});
            let plain = Tokenizer::from_bytes(file(&parts)).unwrap();
            let plain = plain.encode_fast(text.as_str(), true).unwrap().len();
            assert_eq!(tokens(&parts, &text), Ok(plain), "{normalizer}");
        }
        let spaces = " ".repeat(10_000);
        let parts = json!({"normalizer": space(json!({"String": " "}))});
        tokens(&parts, &spaces).unwrap();
    }

    #[test]
    fn pre_tokenizers_and_post_processors_cannot_multiply_a_text() {
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": false});
        let each = json!({"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": false});
        let of = |list: Vec<Value>| json!({"type": "Sequence", "pretokenizers": list});
        let metaspace = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
        for pre_tokenizer in [
            of(vec![bytes.clone(); 30]),
            of(vec![
                of(vec![bytes.clone(), metaspace]),
                of(vec![bytes.clone()]),
            ]),
            of(vec![each.clone(); 100]),
        ] {
            let refused = tokens(&json!({"pre_tokenizer": pre_tokenizer}), "text").unwrap_err();
            assert!(refused.contains("pre"), "{refused}");
        }
        tokens(
            &json!({"pre_tokenizer": of(vec![each.clone(), each, bytes])}),
            "a text",
        )
        .unwrap();
        let special = json!({"SpecialToken": {"id": "s", "type_id": 0}});
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let template = |single: Value, ids: usize| {
            let token = json!({"id": "s", "ids": vec![1; ids], "tokens": vec!["s"; ids]});
            json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {"s": token}})
        };
        let processors = |list: Vec<Value>| json!({"type": "Sequence", "processors": list});
        for post_processor in [
            template(json!(vec![special.clone(); 5000]), 1),
            template(json!([special, text]), 5000),
            template(json!([text, text]), 1),
            template(json!("s $A s $0"), 1),
            processors(vec![template(json!([special, text]), 20); 60]),
            processors(vec![
                json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true});
                100
            ]),
        ] {
            let refused = tokens(&json!({"post_processor": post_processor}), "text").unwrap_err();
            assert!(refused.contains("process"), "{refused}");
        }
        let usual = template(json!([special, text, special]), 1);
        tokens(&json!({"post_processor": usual}), "text").unwrap();
    }

    #[test]
    fn a_pattern_that_takes_for_ever_is_given_up() {
        for pattern in [
            "(a+)+\\1b|(?=(a|aa)+$)x",
            "(?:(a|a)*)*(?<!b)\\1c",
            "(a*)*\\1b",
        ] {
            let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
            let parts = json!({"pre_tokenizer": split});
            // Whether it is refused depends on how the library searches; that it ends does not.
            let _ = tokens(&parts, &"a".repeat(20_000));
        }
    }
}
