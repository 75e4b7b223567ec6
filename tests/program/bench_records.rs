//! The records in `benches/results/`: each is valid by its schema, and the tables of docs/benchmarks.md are made of them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use swiftprune_wgpu::bench::{BENCH_SCHEMA_VERSION, Records};
use swiftprune_wgpu::device::DeviceKind;

use crate::place::program;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Where the tables lie in docs/benchmarks.md: `benches/tables.sh` writes between these lines.
const BEGIN: &str = "<!-- The tables below are made by benches/tables.sh. -->\n";
const END: &str = "<!-- End of the tables. -->\n";

fn files() -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(ROOT).join("benches/results")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no records in benches/results");
    files
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// What is wrong with a file of records.
fn errors(records: &Value) -> Vec<String> {
    let schema = json(&Path::new(ROOT).join("docs/bench.schema.json"));
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors = validator.iter_errors(records);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[test]
fn every_record_is_valid() {
    for file in files() {
        let text = json(&file);
        assert_eq!(errors(&text), Vec::<String>::new(), "{}", file.display());
        let read: Records = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(read.bench_schema_version, BENCH_SCHEMA_VERSION);
        for record in &read.records {
            let device = &record.device;
            let what = format!("{}, {}", file.display(), device.name);
            assert!(!record.debug, "{what}: not a release build");
            let run = record.whole_run();
            assert!(run.is_some(), "{what}: no whole run");
            let of = &run.unwrap().of;
            assert!(record.copy_rate(of).is_some(), "{what}: no copy");
            assert!(record.product_rate(of).is_some(), "{what}: no product");
            for case in &record.cases {
                let share = record.share_of_product(case).unwrap_or(0.0);
                assert!(share < 1.2, "{what}, {}: {share} of product", case.what);
            }
            // Mesa's drivers that run on the CPU must not pass for a GPU.
            let name = device.name.to_lowercase();
            let is_software = ["llvmpipe", "swiftshader", "basic render"]
                .iter()
                .any(|driver| name.contains(driver));
            assert_eq!(device.kind == DeviceKind::Software, is_software, "{what}");
        }
    }
}

#[test]
fn the_schema_refuses_what_is_no_record() {
    let Some(first) = files().into_iter().next() else {
        return;
    };
    let good = json(&first);
    let broken = |change: &dyn Fn(&mut Value)| {
        let mut changed = good.clone();
        change(&mut changed);
        errors(&changed)
    };
    assert!(broken(&|_| ()).is_empty());
    let changes: [&dyn Fn(&mut Value); 6] = [
        &|file| file["bench_schema_version"] = json!(2),
        &|file| file["records"] = json!([]),
        &|file| file["records"][0]["date"] = json!("yesterday"),
        &|file| file["records"][0]["device"]["kind"] = json!("fast"),
        &|file| file["records"][0]["cases"][0]["wall"][0] = json!(-1.0),
        &|file| {
            file["records"][0]["machine"]
                .as_object_mut()
                .unwrap()
                .remove("cpu");
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert!(!broken(change).is_empty(), "change {number}");
    }
}

#[test]
fn the_tables_of_the_documents_are_made_of_the_records() {
    let made = program()
        .args(["bench", "--markdown", "--read"])
        .args(files())
        .output()
        .unwrap();
    assert!(made.status.success());
    let made = String::from_utf8(made.stdout).unwrap();
    let page = fs::read_to_string(Path::new(ROOT).join("docs/benchmarks.md")).unwrap();
    let (_, rest) = page.split_once(BEGIN).expect("where the tables begin");
    let (tables, _) = rest.split_once(END).expect("where they end");
    assert_eq!(
        tables.trim(),
        made.trim(),
        "run benches/tables.sh, which writes docs/benchmarks.md anew"
    );
}

#[test]
fn the_block_for_an_issue_says_what_people_compare() {
    for file in files() {
        let made = program()
            .args(["bench", "--submit-text", "--read"])
            .arg(&file)
            .output()
            .unwrap();
        let text = String::from_utf8(made.stdout).unwrap();
        let blocks: Vec<&str> = text.split("```text\n").skip(1).collect();
        let read: Records = serde_json::from_value(json(&file)).unwrap();
        assert_eq!(blocks.len(), read.records.len());
        for (block, record) in blocks.into_iter().zip(&read.records) {
            let device = &record.device;
            let date = record.date.as_str();
            let said = [&device.name, &device.driver, date, &record.version];
            assert!(said.iter().all(|said| block.contains(*said)), "{block}");
            let is_software = device.kind == DeviceKind::Software;
            assert_eq!(block.contains("a software adapter"), is_software);
            for what in ["whole run ", "of copy", "of product", "fused 2:4"] {
                assert!(block.contains(what), "{what}: {block}");
            }
            // A part of a fused pass.
            assert!(!block.contains("  n_of_m"), "{block}");
        }
    }
}
