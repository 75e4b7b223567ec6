//! Texts, their tokens and windows, through a whole model.

use super::*;

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tiny-llama")
}

fn text(content: &'static str) -> Text {
    Text::new("a text", content)
}

#[test]
fn a_tokenizer_with_more_tokens_than_the_embedding_has_rows_is_refused() {
    let dir = tampered("llama", "model.norm.weight", |_| {});
    let tokenizer = example().join("tokenizer.json");
    fs::copy(tokenizer, dir.path().join("tokenizer.json")).unwrap();
    let checkpoint = open(dir.path());
    let calibration = Calibration::new(&checkpoint, Text::calibration(), 100, None).unwrap();
    let error = calibration.run(&checkpoint, &cpu(1), &|_| {}).unwrap_err();
    let says = "tokenizer.json belongs to another model than the weights";
    assert!(error.to_string().contains(says), "{error}");
}

#[test]
fn norms_say_what_they_were_measured_on() {
    let checkpoint = open(&example());
    let calibration = Calibration::new(&checkpoint, Text::calibration(), 700, Some(300)).unwrap();
    let norms = calibration.run(&checkpoint, &cpu(2), &|_| {}).unwrap();
    let path = tempfile::tempdir().unwrap();
    let path = path.path().join("norms.safetensors");
    norms.write(&path).unwrap();
    let read = Norms::read(&path).unwrap();
    assert_eq!(read.source.tokens, Some(700));
    assert_eq!(read.source.metadata["context"], "300");
    assert_eq!(read.source.metadata["text"], "built-in calibration text");
    assert_eq!(
        read.source.metadata["text_sha256"],
        Text::calibration().sha256()
    );
    assert_eq!(
        read.len(),
        4 * 7,
        "a vector for every linear weight of the blocks"
    );
}

#[test]
fn a_text_longer_than_the_context_goes_in_windows_and_a_shorter_one_is_one() {
    let checkpoint = open(&example());
    let run = |text: &Text, context, tokens| {
        Windows::new(&checkpoint, text, context, tokens)?.run(&checkpoint, &cpu(2), &|_| {})
    };
    let long = run(&Text::held_out(), Some(64), Some(200)).unwrap();
    assert_eq!((long.losses.len(), long.tokens()), (3, 3 * 63));
    let short = run(&text("In the beginning was the Word"), None, None).unwrap();
    assert_eq!((short.context, short.losses.len()), (512, 1));
    assert!(short.tokens() < 20);
    let error = run(&text("a"), None, None).unwrap_err().to_string();
    assert!(error.contains("a text has 1 tokens"), "{error}");
}

#[test]
fn threads_do_not_change_what_a_model_is_surprised_by() {
    let checkpoint = open(&example());
    let run = |threads| {
        let text = Text::held_out();
        let windows = Windows::new(&checkpoint, &text, Some(128), Some(512)).unwrap();
        windows.run(&checkpoint, &cpu(threads), &|_| {}).unwrap()
    };
    let difference = run(1).difference(&run(3)).unwrap();
    assert!(difference.mean.abs() < 1e-5, "{difference:?}");
}

#[test]
fn the_example_is_as_surprised_by_its_held_out_text_as_when_it_was_made() {
    let checkpoint = open(&example());
    let text = Text::read(&example().join("heldout.txt")).unwrap();
    let windows = Windows::new(&checkpoint, &text, Some(256), None).unwrap();
    let evaluation = windows.run(&checkpoint, &cpu(2), &|_| {}).unwrap();
    // Its README says 33.8, measured in Python when it was trained.
    assert!(
        (evaluation.perplexity() - 33.8).abs() < 0.1,
        "{}",
        evaluation.perplexity()
    );
    assert_eq!(evaluation.losses.len(), 47);
}
