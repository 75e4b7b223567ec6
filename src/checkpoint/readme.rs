//! What is added to the README.md of an output: a section at its end, and lines of the front matter that model hubs read.
//!
//! Nothing of the original is replaced, and everything that was added can be told from it: the section stands between two
//! comments, and each line of the front matter ends with one. So an output can still be held against its original byte by byte.

use std::fmt::Write as _;

/// Where the section begins.
const BEGIN: &str = "<!-- swiftprune-wgpu: begin -->\n";
/// Where it ends, with the file.
const END: &str = "<!-- swiftprune-wgpu: end -->\n";
/// How a line of the front matter ends that was added.
const ADDED: &str = " # swiftprune-wgpu";

/// A field of the front matter.
#[derive(Clone, Debug)]
pub(crate) enum Field {
    /// Left out where the original has one of the same name.
    Text(&'static str, String),
    /// Items that are added to those of the original.
    List(&'static str, Vec<&'static str>),
}

/// The original with a section behind it, and with fields in its front matter. A list of the original that is written in one line
/// stays as it is.
pub(crate) fn extended(original: &str, fields: &[Field], section: &str) -> String {
    let (front, body) = match front_matter(original) {
        Some((open, lines, rest)) => {
            let mut text = open.to_owned();
            text += &with_fields(lines, fields);
            (text, rest)
        }
        None => match with_fields("", fields) {
            lines if lines.is_empty() => (String::new(), original),
            lines => (format!("---\n{lines}---\n\n"), original),
        },
    };
    let gap = if original.is_empty() { "" } else { "\n\n" };
    format!("{front}{body}{gap}{BEGIN}{section}{END}")
}

/// Whether a text is the original and nothing but what [`extended`] adds to it; `original` is empty where there was none.
pub(crate) fn is_extended(text: &str, original: &str) -> bool {
    let Some((body, section)) = text.rfind(BEGIN).map(|at| text.split_at(at)) else {
        return false;
    };
    if !section.ends_with(END) {
        return false;
    }
    let gap = if original.is_empty() { "" } else { "\n\n" };
    let Some(body) = body.strip_suffix(gap) else {
        return false;
    };
    let without = without_fields(body);
    body == original || without.iter().any(|body| body == original)
}

/// The opening line of a front matter, its lines, and the closing line with all behind it.
fn front_matter(text: &str) -> Option<(&str, &str, &str)> {
    let open = ["---\n", "---\r\n"]
        .into_iter()
        .find(|open| text.starts_with(open))?;
    let (open, rest) = text.split_at(open.len());
    let mut at = 0;
    for line in rest.split_inclusive('\n') {
        if line.trim_end() == "---" {
            return Some((open, &rest[..at], &rest[at..]));
        }
        at += line.len();
    }
    None
}

/// The lines of a front matter with fields.
fn with_fields(lines: &str, fields: &[Field]) -> String {
    let mut all: Vec<String> = lines.split_inclusive('\n').map(str::to_owned).collect();
    let begins = |line: &str, name: &str| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(':'))
    };
    for field in fields {
        match field {
            Field::Text(name, value) => {
                if !all.iter().any(|line| begins(line, name)) {
                    all.push(format!("{name}: {}{ADDED}\n", quoted(value)));
                }
            }
            Field::List(name, items) => {
                let place = all.iter().position(|line| begins(line, name));
                // Items of a list stand in lines of their own, or in the line of its name.
                let first = place.map(|place| (place, all[place][name.len() + 1..].trim()));
                let (at, indent) = match first {
                    Some((_, inline)) if !inline.is_empty() => continue,
                    Some((place, _)) => {
                        let next = all.get(place + 1).map_or("- ", String::as_str);
                        let indent = next.len() - next.trim_start().len();
                        (
                            place + 1,
                            if next.trim_start().starts_with('-') {
                                indent
                            } else {
                                0
                            },
                        )
                    }
                    None => {
                        all.push(format!("{name}:{ADDED}\n"));
                        (all.len(), 0)
                    }
                };
                let mut added = String::new();
                for item in items {
                    let is_item = |line: &String| {
                        let line = line.trim();
                        line.strip_suffix(ADDED).unwrap_or(line) == format!("- {item}")
                    };
                    if !all.iter().any(is_item) {
                        let _ = writeln!(added, "{}- {item}{ADDED}", " ".repeat(indent));
                    }
                }
                all.insert(at, added);
            }
        }
    }
    all.concat()
}

/// A text as a value of YAML: JSON's strings are such.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let starts = value
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic());
    if starts && value.chars().all(is_plain) {
        value.to_owned()
    } else {
        serde_json::Value::from(value).to_string()
    }
}

/// Whether a line of a front matter is one that [`extended`] adds: no other says anything to a hub that reads it.
fn is_added(line: &str) -> bool {
    let Some(line) = line.trim_end().strip_suffix(ADDED) else {
        return false;
    };
    let (line, is_indented) = (line.trim_start(), line.starts_with(' '));
    let is_tag = matches!(line, "- pruned" | "- sparse");
    is_tag || (!is_indented && (line == "tags:" || line.starts_with("base_model: ")))
}

/// A text without the lines that were added to its front matter, and without the front matter if there is no other line in it.
fn without_fields(text: &str) -> Vec<String> {
    let Some((open, lines, rest)) = front_matter(text) else {
        return Vec::new();
    };
    let kept: String = (lines.split_inclusive('\n'))
        .filter(|line| !is_added(line))
        .collect();
    let mut texts = vec![format!("{open}{kept}{rest}")];
    if kept.is_empty() && !lines.is_empty() {
        texts.extend(rest.strip_prefix("---\n\n").map(str::to_owned));
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Vec<Field> {
        vec![
            Field::Text("base_model", "org/name".to_owned()),
            Field::List("tags", vec!["pruned", "sparse"]),
        ]
    }

    const ORIGINALS: [&str; 9] = [
        "",
        "# A model",
        "# A model\n\n",
        "---\nlicense: mit\ntags:\n- llama\n- sparse\n---\n# A model\n",
        "---\nlicense: mit\ntags:\n  - llama\nlanguage: en\n---\n# A model\n",
        "---\r\ntags: [a, b]\r\nbase_model: other\r\n---\r\nText",
        "---\n---\nan empty front matter\n",
        "---\nnever closed\n",
        "text\n<!-- swiftprune-wgpu: begin -->\nof an earlier run\n<!-- swiftprune-wgpu: end -->\n",
    ];

    #[test]
    fn the_original_is_whole_and_what_was_added_is_told_from_it() {
        for original in ORIGINALS {
            let text = extended(original, &fields(), "## Pruned\n");
            assert!(is_extended(&text, original), "{original:?}: {text}");
            // A second run on top of the first.
            let again = extended(&text, &fields(), "## Pruned\n\nagain\n");
            assert!(is_extended(&again, &text), "{original:?}: {again}");
            assert!(!is_extended(&again, original), "{original:?}");
        }
    }

    #[test]
    fn anything_else_that_differs_is_noticed() {
        for original in ORIGINALS {
            let text = extended(original, &fields(), "## Pruned\n");
            for changed in [
                text.clone() + "behind",
                "before".to_owned() + &text,
                text.replacen("begin -->", "Begin -->", 9),
                text.replace(" # swiftprune-wgpu\n", "\n"),
            ] {
                if changed != text {
                    assert!(!is_extended(&changed, original), "{original:?}: {changed}");
                }
            }
            assert!(original.is_empty() || !is_extended(original, original));
        }
        let text = extended(ORIGINALS[3], &fields(), "");
        for line in ["library_name: x", "  base_model: x", "- other"] {
            let more = text.replace(
                "license: mit\n",
                &format!("license: mit\n{line} # swiftprune-wgpu\n"),
            );
            assert!(!is_extended(&more, ORIGINALS[3]), "{more}");
        }
        assert!(!is_extended(
            &text.replace("license: mit", "license: gpl"),
            ORIGINALS[3]
        ));
    }

    #[test]
    fn the_front_matter_is_the_one_that_hubs_read() {
        let text = extended(ORIGINALS[4], &fields(), "## Pruned\n");
        let wanted = "---\nlicense: mit\ntags:\n  - pruned # swiftprune-wgpu\n  - sparse # swiftprune-wgpu\n  - llama\nlanguage: en\n\
                      base_model: org/name # swiftprune-wgpu\n---\n# A model\n";
        assert!(text.starts_with(wanted), "{text}");
        let text = extended("", &fields(), "## Pruned\n");
        let wanted = "---\nbase_model: org/name # swiftprune-wgpu\ntags: # swiftprune-wgpu\n- pruned # swiftprune-wgpu\n\
                      - sparse # swiftprune-wgpu\n---\n\n<!-- swift";
        assert!(text.starts_with(wanted), "{text}");
        // What the original says of itself stays.
        assert!(extended(ORIGINALS[5], &fields(), "").contains("base_model: other\r\n---"));
        assert!(
            extended("", &[Field::Text("a", "x: #y".to_owned())], "").contains("a: \"x: #y\" # s")
        );
    }
}
