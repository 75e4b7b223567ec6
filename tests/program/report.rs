//! What a run leaves to look at, as a user has it: the report as a page and as JSON, which say the same; its schema; pages of
//! several reports; the model card.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::place::{EXAMPLE, Place};

fn of_file(place: &Place, name: &str) -> Value {
    serde_json::from_str(&place.text(name)).unwrap()
}

/// What is wrong with a JSON by a schema of the documents.
fn errors(schema: &str, json: &Value) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(schema);
    let schema: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors = validator.iter_errors(json);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

fn percent(fraction: &Value) -> String {
    let value = 100.0 * fraction.as_f64().unwrap();
    match value {
        value if value >= 9.95 || value == 0.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[test]
fn the_page_and_the_json_of_one_run_hold_the_same() {
    let place = Place::new();
    place.done(&format!(
        "prune {EXAMPLE} -o out --compensate 32 --tokens 512 --report run.html --report run.json --device cpu -q"
    ));
    let (json, page) = (of_file(&place, "run.json"), place.text("run.html"));
    assert_eq!(errors("report.schema.json", &json), Vec::<String>::new());
    for tensor in json["tensors"].as_array().unwrap() {
        let name = tensor["name"].as_str().unwrap();
        let line = page
            .lines()
            .find(|line| line.contains(&format!("<th scope=\"row\">{name}</th>")));
        let line = line.unwrap_or_else(|| panic!("{name} is not on the page"));
        match tensor["copied_because"].as_str() {
            Some(reason) => assert!(line.contains(reason), "{line}"),
            None => {
                for field in [
                    "sparsity",
                    "asked",
                    "squared_error",
                    "output_error",
                    "output_error_left",
                ] {
                    let number = percent(&tensor[field]);
                    assert!(
                        line.contains(&format!("<td class=\"n\">{number}</td>")),
                        "{field} {number}: {line}"
                    );
                }
            }
        }
    }
    for row in json["rows"].as_array().unwrap() {
        let said = format!(
            "Scores of row {} of {}: {} of the first {} weights became zero.",
            row["row"],
            row["tensor"].as_str().unwrap(),
            row["pruned"].as_array().unwrap().len(),
            row["scores"].as_array().unwrap().len()
        );
        assert!(page.contains(&said), "{said}");
    }
    let words: Vec<&str> = json["command"]
        .as_array()
        .unwrap()
        .iter()
        .map(|w| w.as_str().unwrap())
        .collect();
    assert!(page.contains(&words.join(" ")), "the command");
    let all: u64 = json["histogram"]["counts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c.as_u64().unwrap())
        .sum();
    assert!(all > 0 && page.contains("scores of"));
    // Made later of the JSON, it is the same page.
    place.done("report run.json -o later.html -q");
    assert_eq!(place.text("later.html"), page);
}

#[test]
fn what_the_norms_predict_is_measured_over_the_weights_that_changed() {
    let place = Place::new();
    place.done(&format!(
        "prune {EXAMPLE} -o a --tokens 512 --sparsity 0.3 --report a.json --device cpu -q"
    ));
    place.done(&format!(
        "prune {EXAMPLE} -o b --tokens 512 --sparsity 0.6 --report b.json --device cpu -q"
    ));
    place.done(&format!("prune {EXAMPLE} -o c --tokens 512 --sparsity 0.6 --score swiftprune-weight --report c.json --device cpu -q"));
    let error =
        |name: &str, field: &str| of_file(&place, name)["prunable"][field].as_f64().unwrap();
    assert!(error("a.json", "output_error") < error("b.json", "output_error"));
    // A score that does not look at the outputs is worse by what the norms say of them, and better by the weights alone.
    assert!(error("b.json", "output_error") < error("c.json", "output_error"));
    assert!(error("b.json", "squared_error") > error("c.json", "squared_error"));
    assert!(error("b.json", "output_error") < error("b.json", "squared_error"));
}

#[test]
fn every_kind_of_report_is_valid_and_one_with_a_field_less_is_not() {
    let place = Place::new();
    let runs = [
        (
            "--pattern 2:4 --calibration none --eval --verify --checksum",
            "a.json",
        ),
        ("--lambda -0.5 --calibration none", "b.json"),
        (
            "--selection exact --allocate atp --calibration none",
            "c.json",
        ),
    ];
    for (flags, name) in runs {
        place.done(&format!(
            "prune {EXAMPLE} -o out --force {flags} --report {name} --device cpu -q"
        ));
        let mut json = of_file(&place, name);
        assert_eq!(
            errors("report.schema.json", &json),
            Vec::<String>::new(),
            "{flags}"
        );
        json["tensors"][1].as_object_mut().unwrap().remove("name");
        assert_ne!(errors("report.schema.json", &json), Vec::<String>::new());
        // The same form stands beside the weights.
        let beside = of_file(&place, "out/report.json");
        assert_eq!(errors("report.schema.json", &beside), Vec::<String>::new());
    }
    let json = of_file(&place, "a.json");
    assert!(
        json["evaluation"]["against"]["loss_standard_error"]
            .as_f64()
            .unwrap()
            > 0.0
    );
    let sweep = format!(
        "sweep {EXAMPLE} --calibration none --sparsity 0.5 --pattern 2:4 --eval-tokens 1024 --device cpu -q"
    );
    place.done(&format!("{sweep} -o sweep.json -o sweep.html"));
    assert_eq!(
        errors("sweep.schema.json", &of_file(&place, "sweep.json")),
        Vec::<String>::new()
    );
    place.done("report a.json b.json c.json sweep.json -o page.html -q");
    let page = place.text("page.html");
    for text in [
        "Side by side",
        "1. ria 2:4",
        "2. ria lambda",
        "3. ria 50.0 %",
        "What each way to prune costs",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn a_page_replaces_nothing_and_is_made_of_reports_alone() {
    let place = Place::new();
    fs::write(place.path("mine.html"), "mine").unwrap();
    fs::write(place.path("no.json"), "{\"a\":1}").unwrap();
    fs::write(place.path("newer.json"), "{\"report_schema_version\":3}").unwrap();
    assert!(
        place
            .fails("report no.json -o mine.html")
            .contains("--force")
    );
    assert_eq!(place.text("mine.html"), "mine");
    assert!(
        place
            .fails("report no.json -o page.html")
            .contains("not a report")
    );
    assert!(
        place
            .fails("report newer.json -o page.html")
            .contains("newer version")
    );
    assert!(
        place
            .fails("report absent.json -o page.html")
            .contains("absent.json")
    );
    let said = place.fails(&format!("prune {EXAMPLE} -o out --report run.txt"));
    assert!(said.contains(".html") && said.contains(".json"), "{said}");
}

/// A copy of the example with a README of its own.
fn model_with_readme(place: &Place, readme: &str) {
    fs::create_dir(place.path("model")).unwrap();
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        fs::copy(
            Path::new(EXAMPLE).join(name),
            place.path("model").join(name),
        )
        .unwrap();
    }
    fs::write(place.path("model/README.md"), readme).unwrap();
}

#[test]
fn an_output_directory_has_a_model_card_behind_the_original_text_and_still_verifies() {
    let place = Place::new();
    let original = "---\nlicense: mit\ntags:\n- llama\n---\n# My model\n\nText.\n";
    model_with_readme(&place, original);
    place.done("prune model -o out --sparsity 0.4 --calibration none --device cpu -q");
    let card = place.text("out/README.md");
    assert!(card.starts_with("---\nlicense: mit\ntags:\n- pruned # swiftprune-wgpu\n- sparse # swiftprune-wgpu\n- llama\n---\n# My model\n\nText.\n"), "{card}");
    for text in [
        "## Pruned",
        "prune model -o out --sparsity 0.4",
        "swiftprune-wgpu verify model . --report report.json",
    ] {
        assert!(card.contains(text), "{text}: {card}");
    }
    let sparsity = of_file(&place, "out/report.json")["prunable"]["sparsity"]
        .as_f64()
        .unwrap();
    assert!(
        card.contains(&format!("({:.2} %)", 100.0 * sparsity)),
        "{card}"
    );
    // What the card says to type.
    place.done("verify model out --report out/report.json");
    fs::write(
        place.path("out/README.md"),
        card.replace("Text.", "Other text."),
    )
    .unwrap();
    assert!(
        place
            .fails("verify model out --sparsity 0.4")
            .contains("README.md")
    );
    fs::write(place.path("out/README.md"), card + "more").unwrap();
    assert!(
        place
            .fails("verify model out --sparsity 0.4")
            .contains("README.md")
    );
    // What stands there is replaced, report and all; and a foreign report.json is not.
    place.done("prune model -o out --force --no-card --calibration none --device cpu -q");
    assert_eq!(place.text("out/README.md"), original);
    assert!(!place.path("out/report.json").exists());
    fs::write(place.path("out/report.json"), "{}").unwrap();
    assert!(
        place
            .fails("prune model -o out --force --calibration none --device cpu")
            .contains("report.json")
    );
}

#[test]
fn a_model_that_was_pruned_before_gets_a_second_section_and_a_report_of_its_own() {
    let place = Place::new();
    model_with_readme(&place, "# My model\n");
    place.done("prune model -o once --sparsity 0.2 --calibration none --device cpu -q");
    place.done("prune once -o twice --sparsity 0.5 --calibration none --device cpu -q");
    let card = place.text("twice/README.md");
    assert_eq!(card.matches("## Pruned").count(), 2, "{card}");
    assert_eq!(card.matches("- pruned").count(), 1, "{card}");
    place.done("verify once twice --sparsity 0.5");
    assert_eq!(
        of_file(&place, "twice/report.json")["input"],
        "once/model.safetensors"
    );
}

/// What was zero stays zero: who asks for fewer zeros than there are is told so, by `prune` and by `sweep`.
#[test]
fn a_model_with_more_zeros_than_are_asked_for_is_named() {
    let place = Place::new();
    model_with_readme(&place, "");
    place.done("prune model -o half --sparsity 0.5 --calibration none --device cpu -q");
    let says = "had more zeros already than was asked for: 50.00 % of their weights, where 30";
    let prune = |sparsity: &str| {
        let line = format!(
            "prune half -o again --force --sparsity {sparsity} --calibration none --device cpu"
        );
        let done = place.run(&line);
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        let said = String::from_utf8(done.stderr).unwrap();
        let report = of_file(&place, "again/report.json");
        (said, report["warnings"].to_string())
    };
    let (said, warnings) = prune("0.3");
    assert!(said.contains(&format!("28 of 28 tensors {says}")), "{said}");
    assert!(warnings.contains(says), "{warnings}");
    for sparsity in ["0.5", "0.6"] {
        let (said, warnings) = prune(sparsity);
        assert!(
            !said.contains("already") && !warnings.contains("already"),
            "{said}"
        );
    }
    let done = place
        .run("sweep half --sparsity 0.3,0.5 --calibration none --eval-tokens 512 --device cpu");
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(said.matches(says).count(), 1, "{said}");
}

/// What a flag asks to be measured is a result: on stdout, and of a quiet run, too. What is said beside it is on stderr, once.
#[test]
fn results_go_to_stdout_and_a_warning_is_printed_once() {
    let place = Place::new();
    model_with_readme(&place, "");
    let line = "prune model -o out --force --calibration none --include *.0.*_proj.weight --eval --verify --checksum --device cpu";
    let loud = place.run(line);
    let quiet = place.run(&format!("{line} -q"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&quiet.stderr), "");
    for done in [&loud, &quiet] {
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        let stdout = text(&done.stdout);
        let starts = [
            "verified ",
            "sha256 ",
            "perplexity ",
            "difference ",
            "on built-in held-out text",
        ];
        let lines: Vec<&str> = stdout.lines().collect();
        assert_eq!(lines.len(), starts.len(), "{stdout}");
        assert!(
            lines
                .iter()
                .zip(starts)
                .all(|(line, start)| line.starts_with(start)),
            "{stdout}"
        );
    }
    let said = text(&loud.stderr);
    assert_eq!(said.matches("no column norms").count(), 1, "{said}");
    assert!(!said.contains("perplexity"), "{said}");
    // As JSON they are in the report.
    let done = place.run(&format!("{line} -q --json"));
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert!(report["evaluation"]["perplexity"].is_number());
}

/// A text that says too little is told of before the work, and by `calibrate`, too.
#[test]
fn norms_of_few_tokens_are_warned_of() {
    let place = Place::new();
    let says = |line: &str| {
        let done = place.run(&format!("{line} --device cpu"));
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        String::from_utf8(done.stderr)
            .unwrap()
            .matches("which is few for inputs of up to 512 features")
            .count()
    };
    for (tokens, expected) in [(1, 1), (127, 1), (128, 0)] {
        let norms = format!("norms-{tokens}");
        let tokens = format!("--tokens {tokens}");
        assert_eq!(
            says(&format!("calibrate {EXAMPLE} {tokens} -o {norms}")),
            expected,
            "{tokens}"
        );
        assert_eq!(
            says(&format!("prune {EXAMPLE} {tokens} -o out --force")),
            expected,
            "{tokens}"
        );
        assert_eq!(
            says(&format!("prune {EXAMPLE} --norms {norms} -o out --force")),
            expected,
            "{tokens}"
        );
        let sweep = format!("sweep {EXAMPLE} {tokens} --sparsity 0.5,0.6 --eval-tokens 64");
        assert_eq!(says(&sweep), expected, "{tokens}");
    }
    // A score that takes no norms is not worse for it.
    assert_eq!(
        says(&format!("prune {EXAMPLE} --score magnitude -o out --force")),
        0
    );
}

#[test]
fn the_card_has_the_perplexity_where_it_was_measured() {
    let place = Place::new();
    model_with_readme(&place, "");
    place.done(
        "prune model -o out --calibration none --include *.0.*_proj.weight --eval --device cpu -q",
    );
    let card = place.text("out/README.md");
    assert!(
        card.contains("| perplexity | ") && card.contains("11 windows of 512"),
        "{card}"
    );
}
