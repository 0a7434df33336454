//! Golden checkpoints whose files arrive one by one, with interruptions, changes and damage.

use std::fs;
use std::path::PathBuf;

use expect_test::{Expect, expect};

use super::*;
use crate::checkpoint::Conversion;
use crate::checkpoint::fixture::{contents, golden, owned, write_tensors};
use crate::checkpoint::safetensors::Element;
use crate::progress::Silent;

const SHARDED: &str = "qwen2_untied_sharded";

fn none() -> IgnoredKeys {
    IgnoredKeys::default()
}

/// A checkpoint whose weights are elsewhere.
struct Published {
    root: tempfile::TempDir,
    weights: PathBuf,
    files: Vec<Announced>,
}

impl Published {
    fn new(name: &str) -> Self {
        let (root, weights) = (tempfile::tempdir().unwrap(), golden(name));
        fs::create_dir(root.path().join("small")).unwrap();
        let mut files = Vec::new();
        for entry in fs::read_dir(&weights).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            match name.ends_with(".safetensors") {
                true if !name.starts_with("model") => {}
                true => {
                    let hash = blake3::hash(&fs::read(&path).unwrap()).to_hex().to_string();
                    files.push(Announced { name, bytes: fs::metadata(&path).unwrap().len(), hash, is_here: false });
                }
                false if path.is_file() => drop(fs::copy(&path, root.path().join("small").join(name)).unwrap()),
                false => {}
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Published { root, weights, files }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn announcement(&self, scheme: &str) -> Result<Announcement> {
        let scheme = Scheme::builtin(scheme).unwrap();
        let files = self.files.clone();
        let announcement =
            Announcement::open(&self.path("small"), files, Keep::Nothing, &none(), &scheme, Method::Rtn)?;
        Ok(announcement.expect("safetensors that are not packed"))
    }

    /// Transcribes at most `count` files to `out`; how many were left before, and whether it is complete.
    fn run(&self, scheme: &str, count: usize) -> (usize, bool) {
        let announcement = self.announcement(scheme).unwrap();
        let mut arriving = announcement.begin(&self.path("out")).unwrap();
        let remaining: Vec<_> = arriving.remaining().into_iter().cloned().collect();
        for file in remaining.iter().take(count) {
            arriving.file(&file.name, &self.weights.join(&file.name), &Silent).unwrap();
        }
        let complete = count >= remaining.len();
        if complete {
            arriving.finish(&self.path("out")).unwrap();
        }
        (remaining.len(), complete)
    }

    /// What a conversion of the whole checkpoint gives.
    #[track_caller]
    fn check(&self, scheme: &str) {
        let whole = self.path("whole");
        let quantization = Some((Scheme::builtin(scheme).unwrap(), Method::Rtn));
        Conversion::open(&self.weights, quantization).unwrap().run(&whole, &Silent).unwrap();
        assert!(contents(&self.path("out")) == contents(&whole));
        assert!(!self.path("out.partial").exists());
    }
}

#[test]
fn what_arrives_becomes_what_is_there() {
    for (name, files) in [(SHARDED, 2), ("gemma2", 1), ("llava_onevision", 1)] {
        let published = Published::new(name);
        assert_eq!(published.run("q4f16_1", 9), (files, true), "{name}");
        published.check("q4f16_1");
    }
}

#[test]
fn packed_weights_must_be_there_as_a_whole() {
    let published = Published::new(SHARDED);
    let scheme = Scheme::builtin("q4f16_1").unwrap();
    let open = |files| {
        Announcement::open(&published.path("small"), files, Keep::Files, &none(), &scheme, Method::Rtn).unwrap()
    };
    let mut files = published.files.clone();
    assert!(open(files.clone()).is_some());
    files[0].name = "params_shard_0.bin".to_owned();
    assert!(open(files).is_none());
    let config = published.path("small/config.json");
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    value["quantization_config"] = serde_json::json!({"quant_method": "gptq"});
    fs::write(config, value.to_string()).unwrap();
    assert!(open(published.files.clone()).is_none());
}

#[test]
fn finished_files_are_not_needed_again() {
    let published = Published::new(SHARDED);
    assert_eq!(published.run("q3f16_1", 1), (2, false));
    assert!(!published.path("out").exists(), "nothing has its final name before it is whole");
    assert_eq!(published.run("q3f16_1", 0), (1, false));
    assert_eq!(published.run("q3f16_1", 1), (1, true));
    published.check("q3f16_1");
    // All files finished, but the last step missing.
    let announcement = published.announcement("q4f32_1").unwrap();
    let mut arriving = announcement.begin(&published.path("out")).unwrap();
    for file in &published.files {
        arriving.file(&file.name, &published.weights.join(&file.name), &Silent).unwrap();
    }
    drop(arriving);
    published.run("q4f32_1", 0);
    published.check("q4f32_1");
}

#[test]
fn another_scheme_or_source_begins_afresh() {
    let mut published = Published::new(SHARDED);
    assert_eq!(published.run("q3f16_1", 1), (2, false));
    assert_eq!(published.run("q4f16_1", 1), (2, false));
    published.files[1].hash.push('x');
    assert_eq!(published.run("q4f16_1", 1), (2, false));
    let config = published.path("small/config.json");
    fs::write(&config, fs::read_to_string(&config).unwrap() + "\n").unwrap();
    assert_eq!(published.run("q4f16_1", 1), (2, false));
    assert_eq!(published.run("q4f16_1", 2), (1, true));
    fs::write(&config, fs::read(published.weights.join("config.json")).unwrap()).unwrap();
    assert_ne!(contents(&published.path("out"))["model.json"].len(), 0);
}

/// What the journal says is believed as far as the output agrees.
#[test]
fn damage_is_noticed() {
    let damage = |what: &dyn Fn(PathBuf)| {
        let published = Published::new(SHARDED);
        assert_eq!(published.run("q4f16_1", 1), (2, false));
        what(published.path("out.partial"));
        assert_eq!(published.run("q4f16_1", 2), (2, true));
        published.check("q4f16_1");
    };
    let weights = |partial: &Path| partial.join("new/model.safetensors");
    let journal = |partial: &Path| partial.join("dwindle-journal");
    damage(&|partial| {
        let mut bytes = fs::read(weights(&partial)).unwrap();
        // The first file of weights fills some part of the output, wherever that is.
        let start = bytes.len() / 10;
        bytes[start..].iter_mut().for_each(|byte| *byte ^= 1);
        fs::write(weights(&partial), bytes).unwrap();
    });
    damage(&|partial| fs::write(weights(&partial), "short").unwrap());
    damage(&|partial| fs::remove_dir_all(partial.join("new")).unwrap());
    damage(&|partial| {
        let text = fs::read_to_string(journal(&partial)).unwrap();
        fs::write(journal(&partial), &text[..text.len() - 5]).unwrap();
    });
    damage(&|partial| {
        let text = fs::read_to_string(journal(&partial)).unwrap();
        fs::write(journal(&partial), text.replace("\"output\":\"", "\"output\":\"0")).unwrap();
    });
    damage(&|partial| fs::write(journal(&partial), "").unwrap());
}

#[test]
fn needs_are_known_before_anything_arrives() {
    let published = Published::new(SHARDED);
    let announcement = published.announcement("q4f16_1").unwrap();
    let Work { bytes_in, bytes_to_download, bytes_out, bytes_meanwhile, .. } = announcement.work().clone();
    let total: u64 = published.files.iter().map(|file| file.bytes).sum();
    assert_eq!((bytes_in, bytes_to_download), (total, total));
    assert!(bytes_meanwhile > total, "both files may be there at once");
    published.run("q4f16_1", 2);
    let written: usize = contents(&published.path("out")).values().map(Vec::len).sum();
    let description = contents(&published.path("out"))["model.json"].len();
    assert_eq!(bytes_out, (written - description) as u64);
}

/// Changes the index of a checkpoint.
fn edit_index(published: &Published, change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
    let path = published.path("small").join(INDEX);
    let mut index: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(index["weight_map"].as_object_mut().unwrap());
    fs::write(&path, index.to_string()).unwrap();
}

/// Names that no shard holds, and tensors that another shard holds than the index says.
#[test]
fn an_index_only_names_the_files() {
    let published = Published::new(SHARDED);
    edit_index(&published, |map| {
        let first = published.files[0].name.clone();
        map.insert("model.norm.weight".to_owned(), first.clone().into());
        map.insert("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), first.into());
    });
    assert_eq!(published.run("q4f16_1", 2), (2, true));
    assert!(published.path("out/model.json").is_file());
}

/// Which head of a tied model counts is only known of the whole: an index that lists one, or a file that has one.
#[test]
fn heads_of_tied_models() {
    let published = Published::new(SHARDED);
    let config = published.path("small/config.json");
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    value["tie_word_embeddings"] = true.into();
    fs::write(&config, value.to_string()).unwrap();
    let scheme = Scheme::builtin("q4f16_1").unwrap();
    let files = published.files.clone();
    let open = Announcement::open(&published.path("small"), files, Keep::Nothing, &none(), &scheme, Method::Rtn);
    assert!(open.unwrap().is_none());

    let published = Published::new("gemma2");
    let other = published.path("weights");
    fs::create_dir(&other).unwrap();
    let mut tensors = owned(&golden("gemma2"));
    let (embedding, shape) = tensors["model.embed_tokens.weight"].clone();
    tensors.insert("lm_head.weight".to_owned(), (embedding.iter().map(|x| x + 1.0).collect(), shape));
    let given: Vec<_> = tensors
        .iter()
        .map(|(name, (values, shape))| (name.as_str(), Element::F32, shape.as_slice(), values.clone()))
        .collect();
    write_tensors(&other.join("model.safetensors"), &given);
    let announcement = published.announcement("q4f16_1").unwrap();
    let mut arriving = announcement.begin(&published.path("out")).unwrap();
    let error = arriving.file("model.safetensors", &other.join("model.safetensors"), &Silent).unwrap_err();
    assert!(matches!(error, Error::OwnHead { .. }), "{error}");
}

#[track_caller]
fn check_refusal(change: impl FnOnce(&mut Published), expected: Expect) {
    let mut published = Published::new(SHARDED);
    change(&mut published);
    let announcement = published.announcement("q4f16_1");
    let error = match &announcement {
        Err(error) => error.to_string(),
        Ok(announcement) => {
            let mut arriving = announcement.begin(&published.path("out")).unwrap();
            let file = |file: &Announced| arriving.file(&file.name, &published.weights.join(&file.name), &Silent);
            published.files.iter().try_for_each(file).unwrap_err().to_string()
        }
    };
    let error = error.replace(&published.root.path().display().to_string(), "DIR");
    expected.assert_eq(&error.replace(&published.weights.display().to_string(), "WEIGHTS"));
}

#[test]
fn refusals() {
    check_refusal(
        |published| drop(published.files.remove(0)),
        expect![
            "DIR/small/model.safetensors.index.json: 1 of 2 shards are missing; download them too: model-00001-of-00002.safetensors"
        ],
    );
    check_refusal(
        |published| {
            edit_index(published, |map| {
                let file = map.remove("model.norm.weight").unwrap();
                map.insert("model.form.weight".to_owned(), file);
            });
        },
        expect![[r#"
            DIR/small does not hold the tensors of a `qwen2` model:
              missing      model.norm.weight [64]"#]],
    );
    check_refusal(
        |published| {
            let other = published.path("weights");
            fs::create_dir(&other).unwrap();
            for file in &published.files {
                fs::write(other.join(&file.name), "<html>").unwrap();
            }
            published.weights = other;
        },
        expect![
            "DIR/weights/model-00001-of-00002.safetensors is not a safetensors file: it looks like an HTML or XML page; the download failed, perhaps for lack of a login"
        ],
    );
}
