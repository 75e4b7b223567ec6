//! What a report says of its run, to verify the output by it; and whether that is true.
//!
//! Nothing of a report is believed that the files can show: the tensors and which of them are pruned (decided again from the
//! original), the zeros of each, the sums, the shares of a rule that needs no norms, recorded SHA-256. What is left is the
//! request itself, which [`Asked::on_its_word`] tells.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::schema::REPORT_SCHEMA_VERSION;
use super::totals::Totals;
use crate::checkpoint::{self, Checkpoint};
use crate::checksum;
use crate::counts::Counts;
use crate::plan::{Allocation, Draft, NameFilter, NormsSource, Options, Score};
use crate::prune::{Fault, Verified, VerifyError};
use crate::selection::{Ewma, Pattern, Selection};
use crate::stop::Stop;
use crate::untrusted::{self, ReadError, shown};

/// The longest report that is read, in bytes.
const MAX_REPORT: u64 = 128 << 20;

/// What may lie between two numbers of a report that are the same: it is rounded where it is written.
const ROUNDING: f64 = 1e-9;

/// The keys of a row of counts.
const COUNTS: [&str; 5] = ["tensors", "weights", "zeros", "zeros_before", "non_finite"];

/// What a row has for [`COUNTS`].
fn counts(row: &Value) -> Option<[u64; COUNTS.len()]> {
    let counts: Option<Vec<u64>> = COUNTS.iter().map(|&key| row[key].as_u64()).collect();
    counts?.try_into().ok()
}

/// What a report says of its run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Asked {
    /// The report.
    pub path: PathBuf,
    /// How many weights went, and by which rule.
    pub selection: Selection,
    /// How that was shared out: by a rule that goes by the blocks alone, or as the report has it for each tensor.
    pub allocation: Allocation,
    /// Whether the weights that stayed were compensated.
    pub compensated: bool,
    /// The globs of tensors that were chosen by name.
    pub include: Vec<String>,
    /// The globs of tensors that were left out by name.
    pub exclude: Vec<String>,
    /// The rule that shared it out, where there was one.
    rule: Option<String>,
    /// The score that chose the weights, which no file shows. It is a stranger's text: escape it before printing.
    pub score: String,
    tensors: Vec<TensorClaim>,
    /// The report itself, for its sums.
    json: Value,
}

/// What a report says of one tensor.
#[derive(Clone, Debug)]
struct TensorClaim {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    /// `None` for one that was copied.
    pruned: Option<Claim>,
}

#[derive(Clone, Debug)]
struct Claim {
    weights: u64,
    asked: Option<f64>,
}

/// What of a request is known from elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// How many weights go.
    pub number: bool,
    /// Which tensors.
    pub tensors: bool,
    /// Whether those that stay were compensated.
    pub compensation: bool,
}

/// Why a report cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskedError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is not a report of this program.
    #[error("it is not a report that `prune` wrote: {_0}")]
    NoReport(String),
}

/// Reads what a report in JSON says was asked for.
///
/// # Errors
/// Every variant of [`AskedError`].
pub fn asked(path: &Path) -> Result<Asked, AskedError> {
    let json = untrusted::read(path, MAX_REPORT)?;
    let report: Value = serde_json::from_slice(&json)
        .map_err(|error| AskedError::NoReport(shown(&error.to_string()).to_string()))?;
    let version = report["report_schema_version"].as_u64();
    // What this reads stands in every version alike.
    if !version.is_some_and(|version| (1..=u64::from(REPORT_SCHEMA_VERSION)).contains(&version)) {
        let version = version.map_or_else(|| "none".to_owned(), |version| version.to_string());
        return Err(AskedError::NoReport(format!(
            "its report_schema_version is {version}, and {REPORT_SCHEMA_VERSION} is the last that is known"
        )));
    }
    parse(path, report).ok_or_else(|| {
        AskedError::NoReport(
            "it has no selection, or no list of tensors with their counts".to_owned(),
        )
    })
}

fn parse(path: &Path, report: Value) -> Option<Asked> {
    let rule = &report["selection"];
    let sparsity = rule["sparsity"].as_f64();
    let selection = match rule["rule"].as_str()? {
        // The constants of the moving average choose weights; they do not change how many.
        "ewma" => Selection::Ewma {
            sparsity: sparsity?,
            ewma: Ewma::default(),
        },
        "exact" => Selection::Exact {
            sparsity: sparsity?,
        },
        "lambda" => Selection::Lambda {
            lambda: rule["lambda"].as_f64()?,
            ewma: Ewma::default(),
        },
        "pattern" => {
            let (n, m) = rule["pattern"].as_str()?.split_once(':')?;
            Selection::Pattern(Pattern::new(n.parse().ok()?, m.parse().ok()?)?)
        }
        _ => return None,
    };
    let allocated_by = match rule.get("allocation") {
        None | Some(Value::Null) => None,
        Some(name) => Some(name.as_str()?.to_owned()),
    };
    let mut tensors = Vec::new();
    let mut shares = BTreeMap::new();
    for tensor in report["tensors"].as_array()? {
        let claim = claim(tensor)?;
        if let (Some(_), Some(pruned)) = (&allocated_by, &claim.pruned) {
            shares.insert(claim.name.clone(), pruned.asked?);
        }
        tensors.push(claim);
    }
    let allocation = match allocated_by.as_deref() {
        None => Allocation::Uniform,
        // By the numbers of the blocks alone: shared out again.
        Some("atp") => Allocation::Atp {
            spread: rule["spread"].as_f64()?,
        },
        Some(_) => Allocation::Given {
            sparsities: Arc::new(shares),
        },
    };
    let globs = |key: &str| match report.get(key) {
        None => Some(Vec::new()),
        Some(globs) => globs
            .as_array()?
            .iter()
            .map(|glob| glob.as_str().map(str::to_owned))
            .collect(),
    };
    Some(Asked {
        path: path.to_path_buf(),
        selection,
        allocation,
        compensated: report
            .get("compensation")
            .is_some_and(|value| !value.is_null()),
        include: globs("include")?,
        exclude: globs("exclude")?,
        rule: allocated_by,
        score: report["score"].as_str()?.to_owned(),
        tensors,
        json: report,
    })
}

fn claim(tensor: &Value) -> Option<TensorClaim> {
    let is_copied = !tensor.get("copied_because").is_none_or(Value::is_null);
    Some(TensorClaim {
        name: tensor["name"].as_str()?.to_owned(),
        dtype: tensor["dtype"].as_str()?.to_owned(),
        shape: (tensor["shape"].as_array()?.iter())
            .map(Value::as_u64)
            .collect::<Option<_>>()?,
        pruned: if is_copied {
            None
        } else {
            Some(Claim {
                weights: counts(tensor)?[1],
                asked: tensor.get("asked").and_then(Value::as_f64),
            })
        },
    })
}

impl Asked {
    /// The error that something it says does not hold.
    fn not_true(&self, what: String) -> VerifyError {
        VerifyError::Fault {
            file: self.path.clone(),
            fault: Fault::Report(what),
        }
    }

    /// What happens to every tensor of `original` by what the report says was asked for, decided again.
    ///
    /// # Errors
    /// [`Fault::Report`] where that cannot have been asked for, or the report says something else of a tensor.
    pub fn draft(&self, original: &Checkpoint) -> Result<Draft, VerifyError> {
        let targets = NameFilter::new(&self.include, &self.exclude)
            .map_err(|error| self.not_true(error.to_string()))?;
        let mut options = Options::new(self.selection);
        options.allocation = self.allocation.clone();
        options.targets = targets;
        // How weights were chosen does not matter here, so that no norms are needed.
        options.score = Score::by_name("magnitude");
        let draft = self.drafted(original, options.clone())?;
        self.check_tensors(&draft)?;
        let is_by_scores = matches!(self.rule.as_deref(), Some("owl" | "dlp"));
        if is_by_scores {
            options.allocation = Allocation::Uniform;
            let (ours, all) = (zeros(&draft), zeros(&self.drafted(original, options)?));
            if ours != all {
                return Err(self.not_true(format!(
                    "the shares of its tensors come to {ours} zeros, and what it says was shared out to {all}"
                )));
            }
        }
        Ok(draft)
    }

    fn drafted(&self, original: &Checkpoint, options: Options) -> Result<Draft, VerifyError> {
        Draft::new(original.clone(), options, NormsSource::None).map_err(|error| {
            self.not_true(format!("nobody can have asked for what it says: {error}"))
        })
    }

    /// Holds its list of tensors against the original's, and against what is pruned of them.
    fn check_tensors(&self, draft: &Draft) -> Result<(), VerifyError> {
        let of_model = draft.tensors();
        for (index, claim) in self.tensors.iter().enumerate() {
            let name = shown(&claim.name);
            let Some(tensor) = of_model
                .get(index)
                .filter(|tensor| tensor.name == claim.name)
            else {
                return Err(
                    self.not_true(format!("it lists the tensor {name} where there is none"))
                );
            };
            let shape: Vec<u64> = tensor.shape.iter().map(|&n| n as u64).collect();
            if claim.shape != shape || claim.dtype != format!("{:?}", tensor.dtype) {
                return Err(
                    self.not_true(format!("{name} has another shape or dtype than it says"))
                );
            }
            let (is_pruned, says) = (tensor.target().is_some(), claim.pruned.is_some());
            if is_pruned != says {
                let word = |pruned| if pruned { "pruned" } else { "copied" };
                return Err(self.not_true(format!(
                    "it says that {name} was {}, which by what it says was asked for is {}",
                    word(says),
                    word(is_pruned)
                )));
            }
            let (ours, says) = (tensor.asked(), claim.pruned.as_ref().and_then(|c| c.asked));
            let is_same = match (ours, says) {
                (Some(ours), Some(says)) => (ours - says).abs() <= ROUNDING,
                (None, None) => true,
                _ => false,
            };
            // Nothing was asked of no weights.
            let has_weights = claim.pruned.as_ref().is_some_and(|claim| claim.weights > 0);
            if is_pruned && has_weights && !is_same {
                let number = |asked: Option<f64>| {
                    asked.map_or_else(|| "no number".to_owned(), |asked| asked.to_string())
                };
                return Err(self.not_true(format!(
                    "it says that {} was asked of {name}, which would be {}",
                    number(says),
                    number(ours)
                )));
            }
        }
        match of_model.get(self.tensors.len()) {
            Some(tensor) => Err(self.not_true(format!("it does not list {}", shown(&tensor.name)))),
            None => Ok(()),
        }
    }

    /// Holds its numbers against what was counted in the files: of each tensor, their sums, the lengths, and the SHA-256 of each
    /// file where it has them. `draft` is of [`Self::draft`].
    ///
    /// # Errors
    /// [`Fault::Report`] for the first that is wrong; [`VerifyError::Checkpoint`] for a file that cannot be read.
    pub fn check(
        &self,
        draft: &Draft,
        output: &Checkpoint,
        verified: &Verified,
        stop: &Stop,
    ) -> Result<(), VerifyError> {
        let (mut prunable, mut kinds) = (Totals::default(), BTreeMap::<&str, Totals>::new());
        let counted = verified.tensors.iter().zip(draft.tensors());
        for (index, (counts, tensor)) in counted.enumerate() {
            let (Some(counts), Some(target)) = (counts, tensor.target()) else {
                continue;
            };
            let add = |totals: &mut Totals| totals.add(*counts, tensor.asked());
            let mut totals = Totals::default();
            add(&mut totals);
            let name = shown(&tensor.name).to_string();
            self.equal(&self.json["tensors"][index], &totals.finish(name))?;
            add(&mut prunable);
            add(kinds.entry(&target.kind).or_default());
        }
        let prunable = prunable.finish("all that is pruned");
        self.equal(&self.json["prunable"], &prunable)?;
        let rows = |key: &str| self.json[key].as_array().map_or(&[][..], Vec::as_slice);
        let names = |key| rows(key).iter().map(|row| row["kind"].as_str());
        if !names("kinds").eq(kinds.keys().map(|kind| Some(*kind))) {
            return Err(self.not_true("it lists other kinds of layers than there are".to_owned()));
        }
        for (row, (kind, totals)) in rows("kinds").iter().zip(kinds) {
            self.equal(row, &totals.finish(kind))?;
        }
        let is_shared_out = draft.options().allocation != Allocation::Uniform;
        let blocks = if is_shared_out { draft.blocks() } else { &[] };
        if !names("blocks").eq(blocks.iter().map(|block| Some(block.name.as_str()))) {
            return Err(self.not_true("it lists other blocks than there are".to_owned()));
        }
        for (row, block) in rows("blocks").iter().zip(blocks) {
            let mut totals = Totals::default();
            for &index in &block.tensors {
                let counts = verified.tensors[index].unwrap_or_default();
                totals.add(counts, draft.tensors()[index].asked());
            }
            let name = shown(&block.name).to_string();
            self.equal(row, &totals.finish(name))?;
        }
        let weights: u64 = (draft.tensors().iter())
            .map(|tensor| (tensor.shape.iter()).map(|&n| n as u64).product::<u64>())
            .sum();
        for (what, says, found) in [
            ("bytes", &self.json["bytes"], draft.bytes_total()),
            ("all weights", &self.json["all_weights"]["weights"], weights),
            (
                "zeros of all",
                &self.json["all_weights"]["zeros"],
                prunable.zeros,
            ),
        ] {
            if says.as_u64() != Some(found) {
                return Err(self.not_true(format!("its number of {what} is {says}, not {found}")));
            }
        }
        let sparsity = prunable.zeros as f64 / weights.max(1) as f64;
        let says = &self.json["all_weights"]["sparsity"];
        if !(says.as_f64()).is_some_and(|says| (says - sparsity).abs() <= ROUNDING) {
            return Err(self.not_true(format!(
                "it says that the sparsity of all weights is {says}, and it is {sparsity}"
            )));
        }
        self.check_sums(output, stop)
    }

    /// Holds a row of counts, and the shares beside them, against what was counted.
    fn equal(&self, row: &Value, found: &Totals) -> Result<(), VerifyError> {
        let what = &found.kind;
        let says =
            counts(row).ok_or_else(|| self.not_true(format!("it has no numbers of {what}")))?;
        let ours = [
            found.tensors as u64,
            found.weights,
            found.zeros,
            found.zeros_before,
            found.non_finite,
        ];
        for ((key, says), found) in COUNTS.iter().zip(says).zip(ours) {
            if says != found {
                return Err(self.not_true(format!(
                    "it says {says} {key} of {what}, and there are {found}"
                )));
            }
        }
        for (key, found, rounding) in [
            ("sparsity", Some(found.sparsity), ROUNDING),
            // Nothing was asked of no weights.
            ("asked", found.asked.filter(|_| found.weights > 0), ROUNDING),
            // Summed in another order.
            ("squared_error", found.squared_error, 1e-6),
        ] {
            let says = row[key].as_f64();
            let is_same = match (says, found) {
                (Some(says), Some(found)) => {
                    (says - found).abs() <= rounding * found.abs().max(says.abs()).max(rounding)
                }
                // What a run does not measure, it does not say.
                (None, Some(_)) => key == "squared_error",
                (_, None) => true,
            };
            if !is_same {
                return Err(self.not_true(format!(
                    "it says that the {key} of {what} is {}, and it is {}",
                    row[key],
                    found.unwrap_or(f64::NAN)
                )));
            }
        }
        Ok(())
    }

    /// Holds the SHA-256 that it has of the files of weights against theirs.
    fn check_sums(&self, output: &Checkpoint, stop: &Stop) -> Result<(), VerifyError> {
        let sums = match &self.json["sha256"] {
            Value::Null => return Ok(()),
            Value::Object(sums) => sums,
            _ => return Err(self.not_true("its SHA-256 are none".to_owned())),
        };
        let names: Vec<&String> = sums.keys().collect();
        if names.len() != output.shards.len() {
            return Err(self.not_true("it has SHA-256 of other files than there are".to_owned()));
        }
        for shard in &output.shards {
            let sum = checksum::of_file(&shard.path, stop).map_err(|source| {
                VerifyError::Checkpoint(checkpoint::Error::Io {
                    action: "read",
                    path: shard.path.clone(),
                    source,
                })
            })?;
            let sum = sum.ok_or(VerifyError::Stopped)?;
            // A single file may have been given another name.
            let says = sums.get(&shard.file_name).or(match names.as_slice() {
                [only] => sums.get(*only),
                _ => None,
            });
            if says.and_then(Value::as_str) != Some(&sum) {
                return Err(self.not_true(format!(
                    "the SHA-256 of {} is {sum}, and not the one it has",
                    shown(&shard.file_name)
                )));
            }
        }
        Ok(())
    }

    /// In what another draft, made of what is known from elsewhere, does not go with what the report says: which tensors are
    /// pruned, how much of each, and whether weights were compensated.
    ///
    /// # Errors
    /// [`Fault::Report`] with the first tensor.
    pub fn check_agrees(
        &self,
        own: &Draft,
        other: &Draft,
        compensated: bool,
    ) -> Result<(), VerifyError> {
        for (ours, theirs) in own.tensors().iter().zip(other.tensors()) {
            let same = match (ours.target(), theirs.target()) {
                (Some(_), Some(_)) => {
                    let is_pattern = |draft: &Draft| match draft.options().selection {
                        Selection::Pattern(pattern) => Some(pattern),
                        _ => None,
                    };
                    ours.asked() == theirs.asked() && is_pattern(own) == is_pattern(other)
                }
                (None, None) => true,
                _ => false,
            };
            if !same {
                return Err(self.not_true(format!(
                    "what it says was asked of {} is not what was said otherwise",
                    shown(&ours.name)
                )));
            }
        }
        if self.compensated != compensated {
            let what = if self.compensated { "were" } else { "were not" };
            return Err(self.not_true(format!(
                "it says that the kept weights {what} compensated, and otherwise the contrary was said"
            )));
        }
        Ok(())
    }

    /// What was asked for, in a few words, and what cannot be held against the files: it is taken on the report's word, but for
    /// what is `known` from elsewhere.
    #[must_use]
    pub fn on_its_word(&self, verified: &Verified, known: Known) -> (String, Vec<String>) {
        let globs = |globs: &[String]| {
            let globs: Vec<String> = globs.iter().map(|glob| shown(glob).to_string()).collect();
            globs.join(" ")
        };
        let mut on_word = Vec::new();
        let request = match self.selection {
            Selection::Pattern(pattern) => pattern.to_string(),
            Selection::Lambda { lambda, .. } => {
                if !known.number {
                    on_word.push(format!(
                        "that a fixed lambda of {lambda} was asked for, by which a row may have any number of zeros"
                    ));
                }
                format!("lambda {lambda}")
            }
            Selection::Ewma { sparsity, .. } | Selection::Exact { sparsity } => {
                format!("{} % of each row", 100.0 * sparsity)
            }
        };
        let request = match &self.rule {
            Some(rule) => format!("{request}, shared out by {}", shown(rule)),
            None => request,
        };
        if let (Some(rule), Allocation::Given { .. }, false) =
            (&self.rule, &self.allocation, known.number)
        {
            on_word.push(format!(
                "the share of each block, which {} takes from the norms (they come to the total that was asked for)",
                shown(rule)
            ));
        }
        if !known.tensors {
            if !self.include.is_empty() {
                on_word.push(format!(
                    "that --include {} was asked for",
                    globs(&self.include)
                ));
            }
            if !self.exclude.is_empty() {
                on_word.push(format!(
                    "that --exclude {} was asked for",
                    globs(&self.exclude)
                ));
            }
        }
        if self.compensated && !known.compensation {
            let mut all = Counts::default();
            verified
                .tensors
                .iter()
                .flatten()
                .for_each(|counts| all += *counts);
            let changed = all.squared_error().unwrap_or(0.0);
            on_word.push(format!(
                "that --compensate was asked for, with which a kept weight may be any finite number; sum dW^2 / sum W^2 of the \
                 pruned tensors is {changed:.4}"
            ));
        }
        (request, on_word)
    }
}

/// The zeros that are asked of all tensors; 0 where no number is.
fn zeros(draft: &Draft) -> u64 {
    draft
        .pruned()
        .map(|(tensor, target)| {
            let rows = target.experts as u64 * target.out_features as u64;
            let asked = tensor.asked().unwrap_or(0.0) * target.in_features as f64;
            rows * asked.round() as u64
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<Asked, AskedError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        std::fs::write(&path, json).unwrap();
        asked(&path)
    }

    /// A report with this selection and these tensors.
    fn report(selection: &str, tensors: &str) -> String {
        format!(
            r#"{{"report_schema_version":2,"score":"ria","selection":{{{selection}}},"tensors":[{tensors}]}}"#
        )
    }

    const COPIED: &str = r#"{"name":"a","dtype":"BF16","shape":[4],"copied_because":"a norm"}"#;
    const PRUNED: &str = r#"{"name":"b","dtype":"BF16","shape":[2,4],"asked":0.25,"tensors":1,"weights":8,"zeros":2,
        "zeros_before":0,"non_finite":0}"#;

    #[test]
    fn a_report_says_how_much_and_of_which_tensors() {
        let json = report(
            r#""rule":"pattern","pattern":"2:4""#,
            &format!("{COPIED},{PRUNED}"),
        );
        let report = of(&json).unwrap();
        assert_eq!(
            report.selection,
            Selection::Pattern(Pattern::new(2, 4).unwrap())
        );
        assert_eq!(report.allocation, Allocation::Uniform);
        let pruned: Vec<bool> = report.tensors.iter().map(|t| t.pruned.is_some()).collect();
        assert_eq!(pruned, [false, true]);
    }

    #[test]
    fn a_report_of_shares_says_what_was_asked_of_each_tensor() {
        let rule = r#""rule":"exact","sparsity":0.5,"allocation":"owl""#;
        let asked = of(&report(rule, &format!("{COPIED},{PRUNED}"))).unwrap();
        let shares = BTreeMap::from([("b".to_owned(), 0.25)]);
        assert_eq!(
            asked.allocation,
            Allocation::Given {
                sparsities: Arc::new(shares)
            }
        );
        let without = report(rule, &PRUNED.replace(r#""asked":0.25,"#, ""));
        assert!(matches!(of(&without), Err(AskedError::NoReport(_))));
    }

    #[test]
    fn what_is_no_report_says_so() {
        let good = report(r#""rule":"exact","sparsity":0.5"#, PRUNED);
        assert!(of(&good).is_ok());
        let older = good.replace("_version\":2", "_version\":1");
        assert!(older != good && of(&older).is_ok());
        for json in [
            String::new(),
            "{}".to_owned(),
            report(r#""rule":"pattern","pattern":"4:2""#, ""),
            good.replace(
                r#""report_schema_version":2"#,
                r#""report_schema_version":3"#,
            ),
            good.replace(r#""zeros":2,"#, ""),
            good.replace(r#""shape":[2,4]"#, r#""shape":[2,-4]"#),
        ] {
            assert!(matches!(of(&json), Err(AskedError::NoReport(_))), "{json}");
        }
    }
}
