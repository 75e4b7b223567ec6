//! `sweep` on the example model, as a user runs it: each cell's perplexity is, to the last bit, that of the checkpoint which
//! `prune` writes; a sweep that was stopped goes on; and what cannot be done is refused.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::place::{EXAMPLE, Place, is_ignored, program};

impl Place {
    fn run_on_cpu(&self, arguments: &str) -> Output {
        self.run(&format!("{arguments} --device cpu"))
    }

    #[track_caller]
    fn json_on_cpu(&self, arguments: &str) -> Value {
        self.json(&format!("{arguments} --device cpu"))
    }

    #[track_caller]
    fn refused_on_cpu(&self, arguments: &str, code: i32) -> String {
        self.refused(&format!("{arguments} --device cpu"), code)
    }
}

/// The first cell of a sweep against `prune` and `eval --against` with the same flags.
#[track_caller]
fn assert_as_pruned(place: &Place, sweep: &Value, flags: &[(&str, usize)]) {
    for &(flags, cell) in flags {
        let out = place.path("out");
        let done = place.run_on_cpu(&format!("prune {EXAMPLE} {flags} --force -o out -q"));
        assert_eq!(done.status.code(), Some(0), "{flags}");
        let evaluation = place.json_on_cpu(&format!(
            "eval {EXAMPLE} --tokens 1024 --against {}",
            out.display()
        ));
        let cell = &sweep["cells"][cell];
        assert_eq!(
            cell["perplexity"], evaluation["against"]["perplexity"],
            "{flags}"
        );
        assert_eq!(cell["loss"], evaluation["against"]["loss"], "{flags}");
        assert_eq!(
            cell["difference"], evaluation["against"]["difference"],
            "{flags}"
        );
        assert_eq!(
            cell["difference_standard_error"], evaluation["against"]["standard_error"],
            "{flags}"
        );
        assert_eq!(sweep["dense"]["perplexity"], evaluation["perplexity"]);
    }
}

#[test]
fn the_perplexity_of_a_cell_is_that_of_the_checkpoint_that_prune_writes() {
    let place = Place::new();
    let sweep = place.json_on_cpu(&format!(
        "sweep {EXAMPLE} --sparsity 0.3,60% --pattern 2:4 --allocate uniform,owl,atp --score wanda,ria --eval-tokens 1024"
    ));
    assert_eq!(sweep["cells"].as_array().unwrap().len(), 2 * (3 + 2 + 2));
    assert_as_pruned(
        &place,
        &sweep,
        &[
            ("--sparsity 0.3 --score wanda", 0),
            ("--pattern 2:4 --score wanda", 2),
            ("--sparsity 0.6 --score wanda --allocate owl", 4),
            ("--sparsity 0.3 --score wanda --allocate atp", 5),
            ("--sparsity 0.6 --score ria", 8),
        ],
    );
    assert_ne!(
        sweep["cells"][0]["perplexity"],
        sweep["cells"][1]["perplexity"]
    );
}

#[test]
fn so_it_is_with_compensation() {
    let place = Place::new();
    let sweep = place.json_on_cpu(&format!(
        "sweep {EXAMPLE} --sparsity 0.5 --pattern 2:4 --compensate off,32 --eval-tokens 1024"
    ));
    assert_as_pruned(
        &place,
        &sweep,
        &[
            ("--sparsity 0.5", 0),
            ("--sparsity 0.5 --compensate 32", 2),
            ("--pattern 2:4 --compensate 32", 3),
        ],
    );
    let left = sweep["cells"][2]["output_error_left"].as_f64().unwrap();
    assert!(0.0 < left && left < 1.0, "{left}");
}

#[test]
fn so_it_is_with_the_norms_of_a_file_and_with_scores_that_take_none() {
    let place = Place::new();
    let done = place.run_on_cpu(&format!(
        "calibrate {EXAMPLE} --tokens 1000 --sketch 16 --means -o norms"
    ));
    assert_eq!(done.status.code(), Some(0));
    let sweep = place.json_on_cpu(&format!(
        "sweep {EXAMPLE} --norms norms --sparsity 0.4 --score stade,magnitude --compensate off,8 --eval-tokens 1024"
    ));
    assert_as_pruned(
        &place,
        &sweep,
        &[
            ("--norms norms --sparsity 0.4 --score stade", 0),
            (
                "--norms norms --sparsity 0.4 --score stade --compensate 8",
                1,
            ),
            ("--sparsity 0.4 --score magnitude", 2),
        ],
    );
}

/// A copy of the example whose output layer is stored beside the embedding that it is tied to.
fn with_stored_head(place: &Place) {
    use safetensors::SafeTensors;

    let model = place.path("model");
    fs::create_dir(&model).unwrap();
    for name in ["config.json", "tokenizer.json"] {
        fs::copy(Path::new(EXAMPLE).join(name), model.join(name)).unwrap();
    }
    let bytes = fs::read(Path::new(EXAMPLE).join("model.safetensors")).unwrap();
    let mut tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    let embedding = tensors
        .iter()
        .find(|(name, _)| name == "model.embed_tokens.weight");
    let head = ("lm_head.weight".to_owned(), embedding.unwrap().1.clone());
    tensors.push(head);
    let bytes = safetensors::serialize(tensors, None).unwrap();
    fs::write(model.join("model.safetensors"), bytes).unwrap();
}

#[test]
fn so_it_is_where_only_one_of_a_tied_pair_is_pruned() {
    let place = Place::new();
    with_stored_head(&place);
    let mut seen = Vec::new();
    for name in ["lm_head.weight", "model.embed_tokens.weight", "*e*.weight"] {
        let flags = format!("--include {name} --sparsity 0.5 --score magnitude --calibration none");
        let sweep = place.json_on_cpu(&format!("sweep model {flags} --eval-tokens 512"));
        let done = place.run_on_cpu(&format!("prune model {flags} --force -o out -q"));
        assert_eq!(done.status.code(), Some(0), "{flags}");
        let written = place.json_on_cpu("eval out --tokens 512");
        let perplexity = &sweep["cells"][0]["perplexity"];
        assert_eq!(perplexity, &written["perplexity"], "{name}");
        seen.push(perplexity.as_f64().unwrap());
    }
    let dense = place.json_on_cpu("eval model --tokens 512")["perplexity"]
        .as_f64()
        .unwrap();
    for (i, perplexity) in seen.iter().enumerate() {
        assert!((perplexity / dense - 1.0).abs() > 1e-3, "{seen:?}, {dense}");
        assert!(!seen[..i].contains(perplexity), "{seen:?}");
    }
}

#[test]
fn finished_cells_are_used_again_and_others_are_measured() {
    let place = Place::new();
    let sweep = format!("sweep {EXAMPLE} --calibration none --eval-tokens 1024");
    let first = place.run_on_cpu(&format!("{sweep} --sparsity 0.3,0.5 -o a.csv"));
    assert_eq!(first.status.code(), Some(0));
    let more = place.run_on_cpu(&format!(
        "{sweep} --sparsity 0.3,0.5,0.7 -o b.json --state a.csv.state"
    ));
    let said = String::from_utf8(more.stderr).unwrap();
    assert_eq!(said.matches("  known").count(), 2, "{said}");
    assert!(!said.contains("the dense model"), "{said}");
    let anew = place.json_on_cpu(&format!("{sweep} --sparsity 0.3,0.5,0.7"));
    let resumed: Value = serde_json::from_slice(&fs::read(place.path("b.json")).unwrap()).unwrap();
    for cell in 0..3 {
        for number in ["perplexity", "difference", "difference_standard_error"] {
            assert_eq!(resumed["cells"][cell][number], anew["cells"][cell][number]);
        }
    }
    // Another window is another cell.
    let other = place.run_on_cpu(&format!(
        "{sweep} --sparsity 0.3 --context 64 -o c.csv --state a.csv.state"
    ));
    let said = String::from_utf8(other.stderr).unwrap();
    assert!(!said.contains("  known"), "{said}");
}

#[cfg(unix)]
#[test]
fn a_sweep_that_is_interrupted_keeps_what_is_finished_and_goes_on() {
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;

    if is_ignored(2) {
        eprintln!("SIGINT is ignored here: not tried");
        return;
    }
    let place = Place::new();
    let flags = format!(
        "sweep {EXAMPLE} --calibration none --sparsity 0.2,0.3,0.4,0.5,0.6 --eval-tokens 1024 -o a.csv --device cpu"
    );
    let mut child = program()
        .args(flags.split_whitespace())
        .current_dir(place.dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.starts_with("[1/5]") {
            let id = child.id().to_string();
            assert!(
                Command::new("kill")
                    .args(["-INT", &id])
                    .status()
                    .unwrap()
                    .success()
            );
        }
        said.push(line);
    }
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said:?}");
    assert!(
        said.last()
            .unwrap()
            .contains("of 5 cells; they are kept in a.csv.state"),
        "{said:?}"
    );
    assert!(!place.path("a.csv").exists());
    let again = place.run_on_cpu(flags.strip_suffix(" --device cpu").unwrap());
    assert_eq!(again.status.code(), Some(0));
    assert!(String::from_utf8(again.stderr).unwrap().contains("  known"));
    let csv = fs::read_to_string(place.path("a.csv")).unwrap();
    assert_eq!(csv.lines().count(), 7, "{csv}");
}

#[test]
fn nothing_is_written_but_what_was_asked_for() {
    let place = Place::new();
    let done = place.run_on_cpu(&format!(
        "sweep {EXAMPLE} --calibration none --sparsity 0.5 --eval-tokens 512"
    ));
    assert_eq!(done.status.code(), Some(0));
    assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), 0);
    assert!(String::from_utf8(done.stdout).unwrap().starts_with("SCORE"));
}

#[test]
fn what_cannot_be_done_is_refused() {
    let place = Place::new();
    let said = place.refused_on_cpu(&format!("sweep {EXAMPLE} --pattern 2:4 --allocate owl"), 2);
    let says = "--allocate has no effect with --pattern and no --sparsity";
    assert!(said.contains(says), "{said}");
    let said = place.refused_on_cpu(
        &format!("sweep {EXAMPLE} --calibration none --score wanda"),
        2,
    );
    assert!(said.contains("--calibration builtin"), "{said}");
    fs::write(place.path("a.csv"), "mine").unwrap();
    let said = place.refused_on_cpu(&format!("sweep {EXAMPLE} -o a.csv"), 1);
    assert!(said.contains("--force"), "{said}");
    let said = place.refused_on_cpu(
        &format!("sweep {EXAMPLE} --sparsity 0.5 -o b.csv --state a.csv"),
        1,
    );
    assert!(said.contains("not a file of finished cells"), "{said}");
    assert_eq!(fs::read_to_string(place.path("a.csv")).unwrap(), "mine");
    assert!(!Path::new(&place.path("b.csv")).exists());
}

/// The example in a directory of this place.
fn copy_of_the_example(place: &Place, name: &str) {
    fs::create_dir(place.path(name)).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(Path::new(EXAMPLE).join(file), place.path(name).join(file)).unwrap();
    }
}

#[test]
fn cells_of_another_model_with_the_same_headers_and_times_are_not_used() {
    let place = Place::new();
    copy_of_the_example(&place, "model");
    let path = place.path("model/model.safetensors");
    let a_second = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
    let write = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(a_second).unwrap();
    };
    let bytes = fs::read(&path).unwrap();
    write(&bytes);
    let sweep = "sweep model --calibration none --sparsity 0.5 --eval-tokens 512 --state s";
    let first = place.json_on_cpu(sweep);
    let mut other = bytes.clone();
    // The last weights.
    let from = other.len() - 4096;
    other[from..].fill(0);
    write(&other);
    let of_other = place.json_on_cpu(sweep);
    assert_ne!(
        first["dense"]["perplexity"],
        of_other["dense"]["perplexity"]
    );
    let anew = place.json_on_cpu(&sweep.replace("--state s", ""));
    assert_eq!(of_other["dense"], anew["dense"]);
    assert_eq!(
        of_other["cells"][0]["perplexity"],
        anew["cells"][0]["perplexity"]
    );
    // The same bytes are known in another place, and under other times.
    fs::write(&path, &bytes).unwrap();
    fs::rename(place.path("model"), place.path("moved")).unwrap();
    let known = place.run_on_cpu(&sweep.replace("sweep model", "sweep moved"));
    let said = String::from_utf8(known.stderr).unwrap();
    assert!(said.contains("  known"), "{said}");
}

#[test]
fn two_sweeps_share_a_state_file_and_a_damaged_line_is_skipped() {
    let place = Place::new();
    let start = |sparsities: &str| {
        program()
            .args([
                "sweep",
                EXAMPLE,
                "--calibration",
                "none",
                "--eval-tokens",
                "512",
            ])
            .args([
                "--sparsity",
                sparsities,
                "--state",
                "s",
                "--device",
                "cpu",
                "-q",
            ])
            .current_dir(place.dir.path())
            .spawn()
            .unwrap()
    };
    let running = [start("0.1,0.2,0.3"), start("0.4,0.5,0.6"), start("0.7,0.8")];
    for mut sweep in running {
        assert!(sweep.wait().unwrap().success());
    }
    let all = format!(
        "sweep {EXAMPLE} --calibration none --eval-tokens 512 --sparsity 0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8 --state s"
    );
    let known = |skipped: bool, cells: usize| {
        let done = place.run_on_cpu(&all);
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(0), "{said}");
        assert_eq!(said.matches("  known").count(), cells, "{said}");
        assert_eq!(said.contains("cannot be read: skipped"), skipped, "{said}");
    };
    known(false, 8);
    // One line is damaged: its cell is measured again, and the others are used.
    let text = fs::read_to_string(place.path("s")).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    let cell = lines
        .iter()
        .position(|line| line.contains("\"cell\""))
        .unwrap();
    lines[cell] = "\u{0}\u{0}\u{0}";
    fs::write(place.path("s"), lines.join("\n") + "\n").unwrap();
    known(true, 7);
    known(true, 8);
}
