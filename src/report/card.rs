//! The section of a model card: what was done to the model, in the README.md of an output directory; and report.json beside it.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::checkpoint::{Field, extended_readme, replace_within};
use crate::untrusted::{self, escaped};

/// The report beside the weights.
pub(crate) const REPORT_JSON: &str = "report.json";

/// The longest README that gets a section, in bytes.
const MAX_README: u64 = 16 << 20;

/// What a card says.
#[derive(Clone, Debug)]
pub(crate) struct Card {
    /// Rows of the table: what, and its value.
    pub(crate) facts: Vec<(&'static str, String)>,
    /// The words of the command.
    pub(crate) command: Vec<String>,
    /// What was pruned, as a user names it.
    pub(crate) model: String,
    /// Its name on a model hub.
    pub(crate) base_model: Option<String>,
    /// A sentence on the weights that stay.
    pub(crate) survivors: &'static str,
}

impl Card {
    /// The section in Markdown.
    fn section(&self) -> String {
        let mut text = format!(
            "## Pruned\n\nWeights of {} were set to zero by swiftprune-wgpu {}. {} The files are as large as before, and a runtime \
             gains speed only if it makes use of the zeros.\n\n| | |\n|---|---|\n",
            markdown(&self.model),
            env!("CARGO_PKG_VERSION"),
            self.survivors
        );
        for (name, value) in &self.facts {
            let _ = writeln!(text, "| {name} | {} |", markdown(value));
        }
        let command: Vec<String> = self.command.iter().map(|word| quoted(word)).collect();
        let original = quoted(&self.model);
        let _ = write!(
            text,
            "\nThe command:\n\n{}\nTo verify that nothing else was changed, with the original at hand:\n\n{}\n\
             `{REPORT_JSON}` has the numbers of every tensor.\n\n",
            block(&command.join(" ")),
            block(&format!(
                "swiftprune-wgpu verify {original} . --report {REPORT_JSON}"
            )),
        );
        text
    }

    /// Writes the section and the report into an output directory; gives what a user should know, if there is no section.
    ///
    /// # Errors
    /// When a file cannot be written: each appears whole, or is as before.
    pub(crate) fn write(&self, dir: &Path, report: &impl Serialize) -> io::Result<Option<String>> {
        let json = untrusted::json(report)?;
        write_whole(&dir.join(REPORT_JSON), json.as_bytes())?;
        let path = dir.join("README.md");
        let original = match untrusted::read(&path, MAX_README) {
            Ok(bytes) => String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()),
            Err(error) if error.is_not_found() => Ok(String::new()),
            Err(error) => Err(error.to_string()),
        };
        let original = match original {
            Ok(original) => original,
            Err(reason) => {
                return Ok(Some(format!(
                    "README.md got no section on pruning: {reason}"
                )));
            }
        };
        let mut fields: Vec<Field> = Vec::new();
        fields.extend(
            self.base_model
                .iter()
                .map(|id| Field::Text("base_model", id.clone())),
        );
        fields.push(Field::List("tags", vec!["pruned", "sparse"]));
        let text = extended_readme(&original, &fields, &self.section());
        write_whole(&path, text.as_bytes())?;
        Ok(None)
    }
}

/// A text in a cell of a table, in which nothing is markup.
fn markdown(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in escaped(text).to_string().chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '~' | '#' => {
                safe.push('\\');
                safe.push(c);
            }
            c => safe.push(c),
        }
    }
    safe
}

/// A command in a block of code, which its own backticks do not end.
fn block(command: &str) -> String {
    let command = escaped(command).to_string();
    let mut fence = "```".to_owned();
    while command.contains(&fence) {
        fence.push('`');
    }
    format!("{fence}sh\n{command}\n{fence}\n")
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:=,%+@".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Writes a file that appears whole, in the place of one that is there and with its permissions.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let before = std::fs::metadata(path);
    // As what is copied has them.
    let like = before.or_else(|_| std::fs::metadata(dir.join("config.json")));
    replace_within(dir, path, bytes, like.ok().map(|like| like.permissions()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Card {
        Card {
            facts: vec![("sparsity", "50 % | of <b>all</b>".to_owned())],
            command: vec![
                "swiftprune-wgpu".to_owned(),
                "prune".to_owned(),
                "a ```model".to_owned(),
            ],
            model: "a *model*\n".to_owned(),
            base_model: Some("org/name".to_owned()),
            survivors: "The weights that stay keep their bits.",
        }
    }

    #[test]
    fn a_card_is_added_to_what_is_there_and_the_report_stands_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("README.md");
        std::fs::write(&path, "# The original\n").unwrap();
        assert_eq!(card().write(dir.path(), &7).unwrap(), None);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("# The original\n") && text.contains("## Pruned"),
            "{text}"
        );
        assert!(text.starts_with("---\nbase_model: org/name"), "{text}");
        assert_eq!(std::fs::read(dir.path().join(REPORT_JSON)).unwrap(), b"7\n");
    }

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let text = card().section();
        assert!(text.contains("50 % \\| of &lt;b>all&lt;/b>"), "{text}");
        assert!(text.contains("a \\*model\\*\\\\u{a}"), "{text}");
        assert!(
            text.contains("````sh\nswiftprune-wgpu prune 'a ```model'\n````"),
            "{text}"
        );
    }

    #[test]
    fn a_readme_that_is_no_text_stays_as_it_is_and_that_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("README.md");
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        let said = card().write(dir.path(), &7).unwrap().unwrap();
        assert!(said.contains("not UTF-8"), "{said}");
        assert_eq!(std::fs::read(&path).unwrap(), [0xff, 0xfe]);
    }
}
