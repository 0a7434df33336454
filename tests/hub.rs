//! The hub path of the command against a server on this machine: download, resume, cache, refusals, damage.

pub mod server;

use std::path::{Path, PathBuf};
use std::process::Output;

use expect_test::{Expect, expect};

use self::server::{COMMIT, Fault, Hub, TOKEN};
use crate::workbench::{Dwindle, golden};

const WEIGHTS: &str = "model.safetensors";

fn output(hub: &Hub, dwindle: &Dwindle, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = dwindle.command(arguments);
    command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", &hub.address).env("NO_PROXY", "127.0.0.1,localhost");
    command.envs(variables.iter().copied()).output().unwrap()
}

/// Converts `id` into `model`, which must succeed.
#[track_caller]
fn convert(hub: &Hub, dwindle: &Dwindle, id: &str) {
    let output = output(hub, dwindle, &["convert", id, "-o", "model"], &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Exit code and message of a conversion that must fail, without ports and folders of this run.
#[track_caller]
fn refused(hub: &Hub, dwindle: &Dwindle, id: &str, variables: &[(&str, &str)]) -> String {
    let output = output(hub, dwindle, &["convert", id, "-o", "model"], variables);
    assert!(!dwindle.path("model").exists(), "nothing is left behind");
    let stderr = String::from_utf8(output.stderr).unwrap();
    let stderr = stderr.replace(&hub.address, "http://hub").replace(&dwindle.path("").display().to_string(), "");
    // A log line has the time-free form `LEVEL place: text`; only what the user is told last counts here.
    format!("{} {}", output.status.code().unwrap(), stderr.lines().last().unwrap_or(""))
}

fn model_cache(dwindle: &Dwindle) -> PathBuf {
    dwindle.path("hf/hub/models--tiny--qwen2")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The weights that arrived in `model` are those of a conversion of the folder itself.
#[track_caller]
fn assert_converted_like_local(dwindle: &Dwindle, local: &str) {
    dwindle.run(&["convert", &golden(local).display().to_string(), "-o", "local"]);
    let read = |path: &str| std::fs::read(dwindle.path(path)).unwrap();
    assert!(read("model/model.safetensors") == read("local/model.safetensors"), "the download changed the weights");
}

#[test]
fn a_model_is_downloaded_once_and_taken_up_where_the_connection_broke() {
    let hub = Hub::start(golden("qwen2"));
    hub.fault(WEIGHTS, Fault::Cut, 2);
    let dwindle = Dwindle::new();
    convert(&hub, &dwindle, "tiny/qwen2");
    assert_converted_like_local(&dwindle, "qwen2");
    let size = golden("qwen2").join(WEIGHTS).metadata().unwrap().len();
    let asked: Vec<_> = hub.requests_of("stored/model.safetensors");
    let second = size / 2;
    assert_eq!(
        asked,
        [
            "store GET /stored/model.safetensors".to_owned(),
            format!("store GET /stored/model.safetensors from {second}"),
            format!("store GET /stored/model.safetensors from {}", second + (size - second) / 2),
        ]
    );
    // Without the network, from the cache.
    dwindle.run(&["convert", "tiny/qwen2", "-o", "again"]);
    // With it, only the listing is asked for.
    let before = hub.requests().len();
    std::fs::remove_dir_all(dwindle.path("model")).unwrap();
    convert(&hub, &dwindle, "tiny/qwen2");
    assert_eq!(hub.requests()[before..], ["GET /api/models/tiny/qwen2/revision/main?blobs=true"]);
}

#[test]
fn the_cache_has_the_layout_of_other_tools() {
    let hub = Hub::start(golden("qwen2_untied_sharded"));
    let dwindle = Dwindle::new();
    convert(&hub, &dwindle, "tiny/qwen2");
    assert_converted_like_local(&dwindle, "qwen2_untied_sharded");
    let cache = model_cache(&dwindle);
    assert_eq!(names(&cache), ["blobs", "refs", "snapshots"]);
    assert_eq!(std::fs::read_to_string(cache.join("refs/main")).unwrap(), COMMIT);
    let snapshot = cache.join("snapshots").join(COMMIT);
    for name in names(&snapshot) {
        let link = std::fs::read_link(snapshot.join(&name)).unwrap();
        assert!(link.starts_with("../../blobs"), "{name}");
        assert_eq!(
            std::fs::read(snapshot.join(&name)).unwrap(),
            std::fs::read(golden("qwen2_untied_sharded").join(&name)).unwrap()
        );
    }
    assert!(names(&cache.join("blobs")).iter().all(|name| name.len() == 40 || name.len() == 64));
    // What another tool began under the same name is taken up.
    let shard = "model-00002-of-00002.safetensors";
    let blob = std::fs::canonicalize(snapshot.join(shard)).unwrap();
    let bytes = std::fs::read(&blob).unwrap();
    std::fs::remove_file(&blob).unwrap();
    let partial = format!("{}.incomplete", blob.display());
    std::fs::write(&partial, &bytes[..1000]).unwrap();
    std::fs::remove_dir_all(dwindle.path("model")).unwrap();
    convert(&hub, &dwindle, "tiny/qwen2");
    assert_eq!(std::fs::read(&blob).unwrap(), bytes);
    assert_eq!(*hub.requests_of(shard).last().unwrap(), format!("store GET /stored/{shard} from 1000"));
}

#[test]
fn damage_that_an_earlier_run_left_is_mended() {
    let hub = Hub::start(golden("qwen2"));
    let dwindle = Dwindle::new();
    convert(&hub, &dwindle, "tiny/qwen2");
    let blob = std::fs::canonicalize(model_cache(&dwindle).join("snapshots").join(COMMIT).join(WEIGHTS)).unwrap();
    for left in [vec![7; 1000], vec![7; 1 << 20]] {
        std::fs::remove_file(&blob).unwrap();
        std::fs::write(format!("{}.incomplete", blob.display()), left).unwrap();
        std::fs::remove_dir_all(dwindle.path("model")).unwrap();
        convert(&hub, &dwindle, "tiny/qwen2");
        assert!(std::fs::read(&blob).unwrap() == std::fs::read(golden("qwen2").join(WEIGHTS)).unwrap());
    }
}

#[test]
fn wrong_bytes_never_reach_the_cache() {
    let hub = Hub::start(golden("qwen2"));
    let dwindle = Dwindle::new();
    let check = |file: &str, fault: Fault, expected: Expect| {
        hub.fault(file, fault, 1);
        expected.assert_eq(&refused(&hub, &dwindle, "tiny/qwen2", &[]));
        let blobs = model_cache(&dwindle).join("blobs");
        assert!(names(&blobs).iter().all(|name| !name.ends_with(".incomplete")), "the bad file is removed");
        let snapshot = model_cache(&dwindle).join("snapshots").join(COMMIT);
        assert!(!snapshot.join(file).exists());
        assert!(!model_cache(&dwindle).join("refs").exists(), "a revision that is not whole is not remembered");
    };
    check(
        "config.json",
        Fault::Flip,
        expect![
            "6 error: config.json arrived damaged and was removed: its git blob hash is d4a479c4ef301fe768a3e49f669319f847906726 where the hub lists bb1339a45500f54250e29ecf00e0d21b00590e4d. Try again; if it happens again, a proxy or mirror changes files"
        ],
    );
    check(
        WEIGHTS,
        Fault::Flip,
        expect![
            "6 error: model.safetensors arrived damaged and was removed: its sha256 is 8e6437db48f861776aacf46f8af2f15afe7d02ae84eaccca09c7067828130745 where the hub lists 4080f16471ed2f499eb362b488018e95395a331edb29f926fed48e86eba73615. Try again; if it happens again, a proxy or mirror changes files"
        ],
    );
    check(
        WEIGHTS,
        Fault::Short,
        expect![
            "6 error: model.safetensors has 241172 bytes where the hub lists 482344: the file on the server is damaged or just changed; try again later"
        ],
    );
    // The next attempt gets the right bytes.
    convert(&hub, &dwindle, "tiny/qwen2");
    assert_converted_like_local(&dwindle, "qwen2");
}

#[test]
fn a_file_that_shrinks_while_it_is_downloaded() {
    let hub = Hub::start(golden("qwen2"));
    let dwindle = Dwindle::new();
    hub.fault(WEIGHTS, Fault::Cut, 1);
    hub.fault(WEIGHTS, Fault::Short, 1);
    expect!["6 error: model.safetensors has 241172 bytes where the hub lists 482344: the file on the server is damaged or just changed; try again later"].assert_eq(&refused(&hub, &dwindle, "tiny/qwen2", &[]));
}

#[test]
fn a_server_without_ranges_starts_again() {
    let hub = Hub::start(golden("qwen2"));
    hub.fault(WEIGHTS, Fault::Cut, 1);
    hub.fault(WEIGHTS, Fault::NoRanges, 1);
    let dwindle = Dwindle::new();
    convert(&hub, &dwindle, "tiny/qwen2");
    assert_converted_like_local(&dwindle, "qwen2");
    assert_eq!(hub.requests_of("stored").len(), 2);
}

#[test]
fn trouble_that_passes_is_waited_for() {
    let hub = Hub::start(golden("qwen2"));
    hub.fault("listing", Fault::Status("503 Service Unavailable", ""), 1);
    hub.fault("listing", Fault::Status("429 Too Many Requests", "Retry-After: 1\r\n"), 1);
    hub.fault("config.json", Fault::Status("500 Internal Server Error", ""), 1);
    hub.fault(WEIGHTS, Fault::Status("429 Too Many Requests", "RateLimit: \"resolvers\";r=0;t=1\r\n"), 1);
    let dwindle = Dwindle::new();
    let start = std::time::Instant::now();
    convert(&hub, &dwindle, "tiny/qwen2");
    assert!(start.elapsed().as_secs() >= 2, "pauses that the hub asks for are kept");
}

#[test]
fn trouble_that_stays_is_told() {
    let hub = Hub::start(golden("qwen2"));
    let dwindle = Dwindle::new();
    let check = |file: &str, status, headers, expected: Expect| {
        hub.fault(file, Fault::Status(status, headers), 5);
        expected.assert_eq(&refused(&hub, &dwindle, "tiny/qwen2", &[]));
    };
    check(
        "listing",
        "503 Service Unavailable",
        "Retry-After: 0\r\n",
        expect!["3 error: the hub answered 503 for tiny/qwen2: try again later; what was downloaded is kept"],
    );
    check(
        "config.json",
        "502 Bad Gateway",
        "Retry-After: 0\r\n",
        expect![
            "3 error: the hub answered 502 for config.json of tiny/qwen2: try again later; what was downloaded is kept"
        ],
    );
    check(
        "generation_config.json",
        "429 Too Many Requests",
        "Retry-After: 0\r\n",
        expect![
            "3 error: the hub limits the rate of requests for another 0 s: try again later; what was downloaded is kept. A token in HF_TOKEN raises the limit"
        ],
    );
    // Once is enough where waiting would take an hour, or cannot help.
    let other = Hub::start(golden("qwen2"));
    other.fault("listing", Fault::Status("429 Too Many Requests", "Retry-After: 3600\r\n"), 1);
    expect!["3 error: the hub limits the rate of requests for another 3600 s: try again later; what was downloaded is kept. A token in HF_TOKEN raises the limit"].assert_eq(&refused(&other, &dwindle, "tiny/qwen2", &[]));
    other.fault(WEIGHTS, Fault::Status("410 Gone", ""), 1);
    expect!["3 error: the hub answered 410 for model.safetensors of tiny/qwen2: try again later; what was downloaded is kept"].assert_eq(&refused(&other, &dwindle, "tiny/qwen2", &[]));
    other.fault(WEIGHTS, Fault::Status("404 Not Found", ""), 1);
    expect!["3 error: tiny/qwen2 (revision main) has no file model.safetensors, though it was listed; try again"]
        .assert_eq(&refused(&other, &dwindle, "tiny/qwen2", &[]));
    other.fault(WEIGHTS, Fault::Status("206 Partial Content", ""), 1);
    expect!["3 error: the hub's answer about model.safetensors makes no sense: a part of the file came that does not say which (`Content-Range`). Is HF_ENDPOINT right?"].assert_eq(&refused(&other, &dwindle, "tiny/qwen2", &[]));
    other.fault(WEIGHTS, Fault::Status("206 Partial Content", "Content-Range: bytes 5-9/10\r\n"), 1);
    expect!["3 error: the hub's answer about model.safetensors makes no sense: byte 0 and what follows was asked for, bytes 5-9 came. Is HF_ENDPOINT right?"].assert_eq(&refused(&other, &dwindle, "tiny/qwen2", &[]));
}

#[test]
fn refusals() {
    let hub = Hub::start(golden("qwen2"));
    let dwindle = Dwindle::new();
    let check = |id: &str, token: &[(&str, &str)], expected: Expect| {
        expected.assert_eq(&refused(&hub, &dwindle, id, token));
    };
    check(
        "gated/model",
        &[],
        expect![
            "3 error: gated/model is gated: accept its licence at http://hub/gated/model, make an access token, and set HF_TOKEN to it"
        ],
    );
    check(
        "gated/model",
        &[("HF_TOKEN", "hf_wrong")],
        expect![
            "3 error: gated/model is gated and the account of the token in use has no access: accept its licence at http://hub/gated/model, make an access token, and set HF_TOKEN to it"
        ],
    );
    check(
        "private/model",
        &[],
        expect![
            "3 error: the hub has no model private/model for visitors without a token: check the spelling; if it is private, set HF_TOKEN to a token that may read it"
        ],
    );
    check(
        "private/model",
        &[("HF_TOKEN", "hf_wrong")],
        expect![
            "3 error: the hub has no model private/model for the account of the token in use: check the spelling; if it is private, set HF_TOKEN to a token that may read it"
        ],
    );
    check(
        "bare/model",
        &[],
        expect![[
            r#"3 error: bare/model holds no safetensors files: look on the hub for a repository that does, or convert it there ("Convert to safetensors")"#
        ]],
    );
    check(
        "odd/model",
        &[],
        expect![
            "3 error: the hub's answer about odd/model makes no sense: it is no JSON (expected value at line 1 column 1). Is HF_ENDPOINT right?"
        ],
    );
    let arguments = ["convert", "tiny/qwen2", "--revision", "v9", "-o", "model"];
    let told = output(&hub, &dwindle, &arguments, &[]);
    expect![[r#"
        error: the hub has no model tiny/qwen2 with revision v9: check the spelling of both
    "#]]
    .assert_eq(std::str::from_utf8(&told.stderr).unwrap());
    // With the token, which only the hub gets to see, not the store of large files.
    let told = output(&hub, &dwindle, &["convert", "gated/model", "-o", "model"], &[("HF_TOKEN", TOKEN)]);
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}

#[test]
fn without_a_network() {
    let hub = Hub::start(golden("qwen2"));
    let dwindle = Dwindle::new();
    // Nothing listens on the port that was just given back.
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let unreachable = |dwindle: &Dwindle| {
        let text = refused(&hub, dwindle, "tiny/qwen2", &[("HF_ENDPOINT", &closed)]);
        text.split_once("Check").map(|(_, hint)| hint.to_owned()).unwrap_or(text)
    };
    expect![" the network; what was downloaded is kept and taken up again"].assert_eq(&unreachable(&dwindle));
    expect!["3 error: tiny/qwen2 (revision main): not in the cache hf/hub and HF_HUB_OFFLINE is set: unset it to download, or name a local directory"].assert_eq(&refused(&hub, &dwindle, "tiny/qwen2", &[("HF_HUB_OFFLINE", "1")]));
    convert(&hub, &dwindle, "tiny/qwen2");
    std::fs::remove_dir_all(dwindle.path("model")).unwrap();
    expect![" the network; what was downloaded is kept and taken up again. The model is in the cache: with HF_HUB_OFFLINE=1 it is used from there"].assert_eq(&unreachable(&dwindle));
}

/// The store lies at another port of the same host and answers 400 to whoever shows it a token.
#[test]
fn the_token_follows_redirects_within_the_hub_and_never_leaves_it() {
    let hub = Hub::start(golden("qwen2"));
    let dwindle = Dwindle::new();
    let told = output(&hub, &dwindle, &["convert", "renamed/model", "-o", "model"], &[("HF_TOKEN", TOKEN)]);
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    assert_converted_like_local(&dwindle, "qwen2");
    assert!(!hub.requests_of("store GET").is_empty());
    assert!(refused(&hub, &Dwindle::new(), "renamed/model", &[("HF_TOKEN", "hf_wrong")]).contains("gated"));
}

#[test]
fn a_mirror_whose_listing_tells_no_hashes_is_asked_for_each() {
    let hub = Hub::start_lean(golden("qwen2"));
    let dwindle = Dwindle::new();
    hub.fault(WEIGHTS, Fault::Flip, 1);
    assert!(refused(&hub, &dwindle, "tiny/qwen2", &[]).contains("sha256"));
    convert(&hub, &dwindle, "tiny/qwen2");
    assert_converted_like_local(&dwindle, "qwen2");
    assert!(hub.requests().contains(&format!("HEAD /tiny/qwen2/resolve/{COMMIT}/{WEIGHTS}")));
}

#[test]
fn inspecting_a_hub_id_downloads_the_configuration_alone() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "generation_config.json", WEIGHTS] {
        std::fs::copy(golden("qwen2").join(name), folder.path().join(name)).unwrap();
    }
    let config = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
    std::fs::write(folder.path().join("config.json"), config.replace("\"qwen2\"", "\"qwen9\"")).unwrap();
    let hub = Hub::start(folder.path().to_owned());
    let dwindle = Dwindle::new();
    let told = output(&hub, &dwindle, &["inspect", "tiny/qwen2"], &[]);
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let text = String::from_utf8(told.stdout).unwrap();
    expect![[r#"
        hub id     tiny/qwen2, revision main, commit 0123456789abcdef0123456789abcdef01234567
               797 B  config.json
                60 B  generation_config.json
           471.0 KiB  model.safetensors
           471.9 KiB  in all

        family     qwen9 (not supported)
        published  as Qwen2ForCausalLM
        tensors    not looked at: the configuration is all that was downloaded

        not supported in the configuration
          - model_type `qwen9`: expected one of gemma, gemma2, gemma3_text, llama, llava, llava_onevision, mistral, phi3, qwen2, qwen3

        the configuration is one that `qwen2` understands: perhaps it is the same model

        how to add support: compiler/src/arch/README.md
    "#]].assert_eq(text.split("\nconfiguration\n").next().unwrap());
    let files: Vec<_> = hub.requests().into_iter().filter(|request| !request.contains("/api/")).collect();
    assert_eq!(files, [format!("GET /tiny/qwen2/resolve/{COMMIT}/config.json")]);
    let told = output(&hub, &dwindle, &["inspect", "tiny/qwen2", "--json"], &[]);
    let examination: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&examination["supported"], &examination["model_type"]), (&false.into(), &"qwen9".into()));
    // Without the network, conversion says what is missing.
    let told = dwindle.fail(&["convert", "tiny/qwen2", "-o", "model"]);
    assert!(told.contains("the weights of tiny/qwen2 (revision main): not in the cache"), "{told}");
    let told = output(&hub, &dwindle, &["inspect", "bare/model"], &[]);
    expect![[r#"
        error: bare/model (revision main) has no file config.json: only checkpoints of transformers can be used by hub id
    "#]].assert_eq(std::str::from_utf8(&told.stderr).unwrap());
}
