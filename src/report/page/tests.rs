use super::*;
use crate::report::sweep_tests;

/// A report in JSON with so many decoder blocks of seven linear layers, as a model of 7 billion weights has them.
fn json(blocks: usize, name: &str) -> serde_json::Value {
    let kinds = [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ];
    let mut tensors = vec![serde_json::json!({
        "name": "model.embed_tokens.weight", "dtype": "BF16", "shape": [32000, 4096], "copied_because": "an embedding",
    })];
    let mut inputs = Vec::new();
    for block in 0..blocks {
        let of_block = format!("model.layers.{block}");
        for (place, kind) in kinds.iter().enumerate() {
            tensors.push(serde_json::json!({
                "name": format!("{of_block}.{name}.{kind}.weight"), "block": of_block, "dtype": "BF16",
                "shape": [11008, 4096], "kind": kind, "weights": 45_088_768_u64, "zeros": 22_544_384_u64,
                "sparsity": 0.5, "asked": 0.5, "squared_error": 0.123_456_789 + 0.001 * (block * 7 + place) as f64,
                "output_error": 0.0678, "output_error_left": 0.42,
            }));
            inputs.push(serde_json::json!({
                "tensor": "t", "kind": kind, "block": of_block, "features": 4096, "dead": 0, "largest": 12.0 + block as f64,
                "percentile_99": 3.5, "outlier_count": 2, "outliers": [[138, 41.5], [7, 12.25]],
            }));
        }
    }
    let row = serde_json::json!({
        "tensor": format!("model.layers.0.{name}.q_proj.weight"), "row": 2048, "in_features": 4096,
        "scores": (0..512).map(|i| f64::from(i % 37) / 7.0 - 12.345_678).collect::<Vec<_>>(),
        "pruned": (0..512).step_by(2).collect::<Vec<_>>(), "block_size": 128,
        "averages": [[-9.5, 0.75], [-9.25, 0.5], [-9.0, 0.75], [-9.5, 1.0]], "lambda": -0.125, "threshold": null,
    });
    serde_json::json!({
        "report_schema_version": 1, "version": "0.1.0", "command": ["swiftprune-wgpu", "prune", name],
        "input": format!("{name}/model.safetensors"), "output": "out", "score": "swiftprune", "device": null,
        "selection": {"rule": "ewma", "sparsity": 0.5, "block_size": 128, "gain": "1/8"},
        "compensation": {"rank": 128, "ridge": 0.03, "steps": 8, "mask_steps": 0},
        "norms": {"path": "p", "format": "measurement", "tokens": 4096, "metadata": {"text": name}},
        "prunable": {"weights": 6_476_005_376_u64, "zeros": 3_238_002_688_u64, "sparsity": 0.5, "asked": 0.5, "output_error": 0.0678},
        "tensors": tensors, "bytes": 13_476_839_424_u64, "seconds": 71.5, "stages": {"read": 3.0, "write": 9.0},
        "phases": {"calibrate": 300.0, "prune": 71.5}, "plain_copy": {"bytes": 268_435_456, "seconds": 0.1},
        "evaluation": {"text": name, "context": 512, "windows": 8, "tokens": 4088, "perplexity": 5.5, "loss_standard_error": 0.03,
            "against": {"perplexity": 7.25, "loss_standard_error": 0.04, "difference": 0.27, "standard_error": 0.01}},
        "warnings": [format!("a warning about {name}")], "rows": [row.clone(), row.clone(), row],
        "histogram": {"rows": 192, "from": -8.0, "to": 8.0, "counts": vec![1_000_u64; 96], "lambda": [-0.5, -0.125, 0.25]},
        "inputs": inputs,
    })
}

fn run(blocks: usize, name: &str) -> Run {
    match parse(json(blocks, name).to_string().as_bytes()).unwrap() {
        Document::Run(run) => *run,
        Document::Sweep(_) => panic!("a sweep"),
    }
}

#[test]
fn the_page_of_a_model_of_7_billion_weights_is_below_a_megabyte_and_loads_nothing() {
    let page = page(&[run(32, "mlp")], &[]);
    assert!(page.len() < 1_000_000, "{}", page.len());
    for loads in [
        "http:", "https:", "src=", "href=", "url(", "@import", "<script", "<link",
    ] {
        assert!(!page.contains(loads), "{loads}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn every_section_says_in_a_sentence_what_to_see() {
    let page = page(&[run(2, "mlp")], &[sweep_tests::example()]);
    let sections: Vec<&str> = page.split("<section>").skip(1).collect();
    assert_eq!(sections.len(), 12, "a picture is missing");
    for section in sections {
        let (_, sentence) = section.split_once("<p class=\"see\">").unwrap();
        let (sentence, _) = sentence.split_once("</p>").unwrap();
        assert!(sentence.ends_with('.') && sentence.len() > 25, "{sentence}");
    }
}

#[test]
fn a_name_from_a_checkpoint_cannot_become_part_of_the_page() {
    let hostile = "<script>alert('1')</script>\"&\u{202e}x";
    let page = page(
        &[run(1, hostile), run(1, hostile)],
        &[{
            let mut sweep = sweep_tests::example();
            sweep.model = hostile.to_owned();
            sweep.text = hostile.to_owned();
            sweep.cells[0].score = hostile.to_owned();
            sweep.cells[0].pruned = hostile.to_owned();
            sweep.cells[0].rule = "pattern".to_owned();
            sweep.command.push(hostile.to_owned());
            sweep
        }],
    );
    assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;\\u{202e}x"));
    assert!(!page.contains("<script") && !page.contains('\u{202e}'));
}

#[test]
fn the_numbers_of_the_json_are_those_of_the_page() {
    let json = json(3, "mlp");
    let page = page(&[run(3, "mlp")], &[]);
    for tensor in json["tensors"].as_array().unwrap().iter().skip(1) {
        let line = page.lines().find(|line| {
            line.contains(&format!(
                "<th scope=\"row\">{}<",
                tensor["name"].as_str().unwrap()
            ))
        });
        let line = line.expect("a line for every tensor");
        let number = |field: &str| html::percent(tensor[field].as_f64().unwrap());
        for field in [
            "sparsity",
            "asked",
            "squared_error",
            "output_error",
            "output_error_left",
        ] {
            assert!(
                line.contains(&format!(">{}<", number(field))),
                "{field}: {line}"
            );
        }
    }
    for text in [
        "swiftprune-wgpu prune mlp",
        "lambda -0.12",
        "feature 138",
        "7.25 \u{b1} 0.29",
        "a warning about mlp",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn blocks_stand_in_the_order_of_their_numbers_and_what_was_asked_is_said_where_it_was_not_reached()
{
    let mut json = json(12, "mlp");
    json["tensors"][1]["sparsity"] = 0.25.into();
    let Document::Run(run) = parse(json.to_string().as_bytes()).unwrap() else {
        panic!("a sweep");
    };
    let page = page(&[*run], &[]);
    let place = |row: &str| {
        page.find(&format!("<tr><th scope=\"row\">{row}</th>"))
            .unwrap()
    };
    assert!(place("2") < place("10"));
    assert!(page.contains("25.0<small>asked 50.0</small>"));
}

#[test]
fn an_older_report_has_a_page_with_fewer_pictures() {
    let old = br#"{"version":"0.0.9","command":[],"input":"m","output":"o","score":"wanda","selection":{"rule":"pattern","pattern":"2:4"},
        "tensors":[{"name":"a.weight","dtype":"F32","shape":[2,4],"kind":"a","weights":8,"zeros":4,"sparsity":0.5,"asked":0.5}],
        "bytes":8,"seconds":0.5,"stages":{}}"#;
    let Document::Run(run) = parse(old).unwrap() else {
        panic!("a sweep");
    };
    let page = page(&[*run], &[]);
    assert!(page.contains("Where the zeros are") && !page.contains("How weights are chosen"));
}

#[test]
fn what_is_no_report_is_refused_and_so_is_one_of_a_newer_version() {
    for text in [
        "",
        "[]",
        "{}",
        "{\"selection\":{},\"tensors\":7}",
        "{\"sweep_schema_version\":1}",
    ] {
        assert!(
            matches!(parse(text.as_bytes()), Err(PageError::NoReport(_))),
            "{text}"
        );
    }
    for field in ["report_schema_version", "sweep_schema_version"] {
        let newer = parse(format!("{{\"{field}\":99}}").as_bytes());
        assert!(matches!(newer, Err(PageError::Newer { found: 99, .. })));
    }
}

#[test]
fn hostile_numbers_draw_something_and_do_not_panic() {
    let mut json = json(1, "mlp");
    json["rows"][0]["averages"] = serde_json::json!([[1e300, -1e300]]);
    json["rows"][0]["block_size"] = 0.into();
    json["rows"][0]["scores"] = serde_json::json!([]);
    json["rows"][1]["scores"] = serde_json::json!([null, 1e308, -1e308]);
    json["histogram"]["counts"] = serde_json::json!([]);
    json["inputs"][0]["largest"] = 1e300.into();
    json["inputs"][0]["block"] = "x.99999999999999999999".into();
    json["bytes"] = u64::MAX.into();
    json["histogram"]["counts"] = serde_json::json!([u64::MAX, u64::MAX]);
    let Document::Run(run) = parse(json.to_string().as_bytes()).unwrap() else {
        panic!("a sweep");
    };
    let mut sweep = sweep_tests::example();
    sweep.cells[0].quality = crate::report::Quality::of_loss(600.0, Some(1.0));
    let page = page(&[*run], &[sweep]);
    assert!(page.len() < 1_000_000, "{}", page.len());
}

/// The rest of a report that is as short as one can be.
const SHORT: &str = r#"{"selection":{},"tensors":[],"rows":[{"tensor":"t","row":0,"in_features":1,"pruned":[],"averages":[],"scores":"#;

/// A page of this JSON, drawn within its bounds: of a length that the file's allows.
fn bounded(json: &str) -> String {
    let (runs, sweeps) = match parse(json.as_bytes()).unwrap() {
        Document::Run(run) => (vec![*run], Vec::new()),
        Document::Sweep(sweep) => (Vec::new(), vec![*sweep]),
    };
    let page = page(&runs, &sweeps);
    assert!(page.len() < (1 << 20) + 32 * json.len(), "{}", page.len());
    assert!(!page.contains("NaN%") && !page.contains("inf%"));
    page
}

#[test]
fn scores_so_large_that_a_step_changes_nothing_come_to_an_end() {
    for scores in [
        "[1e17]",
        "[1e16]",
        "[-1e16,1e16]",
        "[1.7e308,-1.7e308]",
        "[4503599627370497.5]",
        "[5e-324,-5e-324]",
        "[null]",
        "[]",
    ] {
        bounded(&format!("{SHORT}{scores}}}]}}"));
    }
}

#[test]
fn every_number_of_a_report_and_of_a_sweep_may_be_anything_that_json_holds() {
    let whole = [
        json(2, "mlp"),
        serde_json::to_value(sweep_tests::example()).unwrap(),
    ];
    for original in whole {
        let mut paths = Vec::new();
        numbers(&original, String::new(), &mut paths);
        assert!(paths.len() > 10);
        for path in paths {
            for hostile in [
                "1.7e308",
                "-1.7e308",
                "5e-324",
                "-5e-324",
                "1e16",
                "0",
                "-1",
                "18446744073709551615",
                "9223372036854775808",
            ] {
                let mut json = original.clone();
                *json.pointer_mut(&path).unwrap() = serde_json::from_str(hostile).unwrap();
                // A count that is no count is refused.
                let json = json.to_string();
                if parse(json.as_bytes()).is_ok() {
                    bounded(&json);
                }
            }
        }
    }
}

/// The places of a value's numbers; of a long list, of the first few.
fn numbers(value: &serde_json::Value, at: String, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Number(_) if !at.ends_with("schema_version") => found.push(at),
        serde_json::Value::Object(map) => {
            map.iter()
                .for_each(|(key, value)| numbers(value, format!("{at}/{key}"), found));
        }
        serde_json::Value::Array(list) => {
            let first = list.iter().take(3).enumerate();
            first.for_each(|(place, value)| numbers(value, format!("{at}/{place}"), found));
        }
        _ => {}
    }
}

#[test]
fn many_kinds_blocks_and_cells_do_not_multiply() {
    let tensors: Vec<_> = (0..30_000)
        .map(|i| serde_json::json!({"name": "t", "kind": format!("k{i}"), "block": format!("b.{i}")}))
        .collect();
    let rows = vec![
        serde_json::json!({"tensor": "", "row": 0, "in_features": 0, "scores": [], "pruned": [], "averages": []});
        3000
    ];
    let inputs: Vec<_> = (0..30_000)
        .map(|i| serde_json::json!({"kind": format!("k{i}"), "block": "b.4294967295", "largest": 1e308, "percentile_99": 1, "outlier_count": u64::MAX, "outliers": []}))
        .collect();
    let run =
        serde_json::json!({"selection": {}, "tensors": tensors, "rows": rows, "inputs": inputs});
    let page = bounded(&run.to_string());
    assert!(page.contains("More kinds of layers are in the JSON"));
    let mut sweep = serde_json::to_value(sweep_tests::example()).unwrap();
    let cell = sweep["cells"][0].clone();
    sweep["cells"] = (0..20_000)
        .map(|i| {
            let mut cell = cell.clone();
            cell["score"] = format!("s{i}").into();
            cell
        })
        .collect();
    assert!(bounded(&sweep.to_string()).contains("18,500 more are in the JSON"));
}
