//! Writing and reading whole bundles, and what damaged ones say.

use std::path::Path;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use crate::*;

pub(crate) fn plan() -> Plan {
    let buffer = |name: &str, bytes, kind| Buffer { name: name.to_owned(), bytes, kind };
    let port =
        |name: &str, buffer, rows| Port { name: name.to_owned(), buffer, dtype: PortType::F32, rows, columns: 4 };
    let bind = |buffer, bytes| Binding { buffer, offset: 0, bytes };
    let text = "kernels/double.wgsl".to_owned();
    Plan {
        max_rows: 2,
        buffers: vec![
            buffer("weights.0", 8192, BufferKind::Weights("weights.0".to_owned())),
            buffer("x", 32, BufferKind::Input),
            buffer("y", 32, BufferKind::Output),
        ],
        kernels: vec![Kernel {
            name: "double".to_owned(),
            code: Code::Wgsl { text, spirv: None, msl: None },
            workgroup: [64, 1, 1],
            bindings: vec![Access::Read, Access::ReadWrite, Access::ReadWrite],
        }],
        functions: [(
            "decode".to_owned(),
            Function {
                max_rows: 2,
                inputs: vec![port("x", 1, None)],
                outputs: vec![port("y", 2, Some(2))],
                steps: vec![Step {
                    kernel: 0,
                    bindings: vec![bind(0, 8192), bind(1, 32), bind(2, 32)],
                    grid: [Extent::RowsPer(4), Extent::Fixed(1), Extent::LengthPer(8)],
                }],
            },
        )]
        .into(),
    }
}

pub(crate) fn manifest(plan: Plan) -> Manifest {
    let estimates =
        Estimates { process: 1000, staging: 0, models: vec![ModelEstimates { tokenizer: 100, picture: 10 }] };
    Manifest {
        memory: MemoryPlan::new(&[("tiny", plan.memory())], None, estimates),
        format_version: FORMAT_VERSION,
        target: Target {
            name: "vulkan".to_owned(),
            needs: [("max_buffer_size".to_owned(), 8192)].into(),
            features: vec![],
        },
        models: vec![Model {
            name: "tiny".to_owned(),
            about: [("family".to_owned(), "none".to_owned())].into(),
            context: 8,
            vocab_size: 4,
            hidden_size: 4,
            memory: plan.memory(),
            text: None,
            image: None,
            sampling: SamplingDefaults { temperature: Some(0.7), ..SamplingDefaults::default() },
            plan,
        }],
        ensemble: None,
        also: Vec::new(),
        entries: Default::default(),
    }
}

fn weights() -> Vec<u8> {
    (0..8192u32).map(|i| (i * 7 % 251) as u8).collect()
}

fn write(path: &Path, plan: Plan) -> Result<Manifest, Error> {
    let mut writer = Writer::create(path)?;
    writer.entry("kernels/double.wgsl", |sink| sink.write(b"// text"))?;
    writer.entry("weights.0", |sink| weights().chunks(1000).try_for_each(|part| sink.write(part)))?;
    writer.finish(manifest(plan))
}

fn written(plan: Plan) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.dwindle");
    write(&path, plan).unwrap();
    std::fs::read(path).unwrap()
}

/// Opens these bytes, and checks every hash.
fn open(bytes: &[u8]) -> Result<Bundle, Error> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    let bundle = Bundle::open(file.path())?;
    bundle.verify()?;
    Ok(bundle)
}

#[track_caller]
fn check_error(result: Result<Bundle, Error>, expected: Expect) {
    expected.assert_eq(&result.unwrap_err().to_string());
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.dwindle");
    let manifest = write(&path, plan()).unwrap();
    let bundle = Bundle::open(&path).unwrap();
    assert_eq!(bundle.manifest(), &manifest);
    assert_eq!(bundle.entry("weights.0").unwrap(), weights());
    assert_eq!(bundle.text("kernels/double.wgsl").unwrap(), "// text");
    let mut streamed = Vec::new();
    let collect = |offset: u64, part: &[u8]| {
        assert_eq!(offset, streamed.len() as u64);
        streamed.extend_from_slice(part);
        Ok::<(), Error>(())
    };
    bundle.stream("weights.0", 100, collect).unwrap();
    assert_eq!(streamed, weights());
    let offset = bundle.entry("weights.0").unwrap().as_ptr() as usize;
    assert_eq!(offset % usize::from(ENTRY_ALIGNMENT), 0, "entries lie on page boundaries of the mapping");
    assert_eq!(manifest.models[0].memory.weights, 8192);
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["a.dwindle"], "nothing else is left");
}

#[test]
fn same_input_gives_the_same_bytes() {
    assert_eq!(written(plan()), written(plan()));
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.dwindle");
    let mut writer = Writer::create(&path).unwrap();
    writer.entry("x", |sink| sink.write(b"x")).unwrap();
    let again = writer.entry("x", |sink| sink.write(b"y")).unwrap_err();
    expect!["entry `x` is written twice"].assert_eq(&again.to_string());
    drop(writer);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn other_files_are_named() {
    check_error(open(b""), expect!["not a bundle: it is empty; `dwindle compile` makes bundles (*.dwindle)"]);
    check_error(
        open(b"\x89PNG...."),
        expect!["not a bundle: it looks like a PNG picture; `dwindle compile` makes bundles (*.dwindle)"],
    );
    check_error(
        open(b"GGUF...."),
        expect!["not a bundle: it looks like a GGUF file; `dwindle compile` makes bundles (*.dwindle)"],
    );
    check_error(
        open(b"\x10\0\0\0\0\0\0\0{\"a\":1}"),
        expect!["not a bundle: it looks like a safetensors file; `dwindle compile` makes bundles (*.dwindle)"],
    );
}

#[test]
fn damage_is_found() {
    let whole = written(plan());
    for length in [5, 100, 4096, 8000, whole.len() - 1] {
        let error = open(&whole[..length]).unwrap_err().to_string();
        assert!(error.contains("damaged or incomplete"), "{length} bytes: {error}");
    }
    let at = whole.windows(4).position(|w| w == &weights()[1000..1004]).unwrap();
    let mut flipped = whole.clone();
    flipped[at] ^= 0x10;
    check_error(
        open(&flipped),
        expect![
            "entry `weights.0` of the bundle does not have the hash that its manifest promises: the file was damaged or changed; copy or compile it again"
        ],
    );
}

/// Two entries of the directory that claim the same bytes of the file.
#[test]
fn entries_do_not_overlap() {
    let mut bytes = written(plan());
    let at = |bytes: &[u8], name: &str| {
        let mut places = bytes.windows(name.len()).enumerate().filter(|(_, w)| *w == name.as_bytes());
        places.next_back().unwrap().0
    };
    // In the central directory, a name stands 46 bytes behind the beginning of its record, 4 behind the place of the entry.
    let (text, weights) = (at(&bytes, "kernels/double.wgsl"), at(&bytes, "weights.0"));
    let place: [u8; 4] = bytes[weights - 4..weights].try_into().unwrap();
    bytes[text - 4..text].copy_from_slice(&place);
    let error = open(&bytes).unwrap_err().to_string();
    assert!(error.contains("damaged or incomplete"), "{error}");
}

#[test]
fn other_versions_are_refused_before_their_fields() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.dwindle");
    let mut writer = Writer::create(&path).unwrap();
    writer.entry("x", |sink| sink.write(b"x")).unwrap();
    writer.finish(Manifest { format_version: 99, ..manifest(Plan { max_rows: 1, ..Plan::default() }) }).unwrap();
    check_error(
        Bundle::open(&path),
        expect!["the bundle has format version 99, this program reads version 4; compile it again"],
    );
}

/// A plan with one thing wrong, and what is said of it.
#[track_caller]
fn check_plan(change: impl FnOnce(&mut Plan), expected: Expect) {
    let mut plan = plan();
    change(&mut plan);
    check_error(open(&written(plan)), expected);
}

#[test]
fn plans_are_checked() {
    fn decode(plan: &mut Plan) -> &mut Function {
        plan.functions.get_mut("decode").unwrap()
    }
    check_plan(|p| p.max_rows = 0, expect!["the plan of model `tiny` is invalid: max_rows is 0"]);
    check_plan(
        |p| decode(p).max_rows = 0,
        expect!["the plan of model `tiny` is invalid: function `decode` has calls of at most 0 rows, the plan of 2"],
    );
    check_plan(
        |p| decode(p).max_rows = 3,
        expect!["the plan of model `tiny` is invalid: function `decode` has calls of at most 3 rows, the plan of 2"],
    );
    check_plan(|p| p.buffers[1].bytes = 6, expect!["the plan of model `tiny` is invalid: buffer `x` has 6 bytes"]);
    check_plan(
        |p| p.buffers[2].name = "x".to_owned(),
        expect!["the plan of model `tiny` is invalid: buffer `x` is there twice"],
    );
    check_plan(
        |p| p.buffers[0].bytes = 8196,
        expect!["the plan of model `tiny` is invalid: buffer `weights.0` has 8196 bytes, its entry 8192"],
    );
    check_plan(
        |p| p.buffers[0].kind = BufferKind::Weights("w".to_owned()),
        expect!["the plan of model `tiny` is invalid: buffer `weights.0` holds `w`, which is not there"],
    );
    check_plan(
        |p| p.kernels[0].workgroup = [1 << 20, 1 << 20, 1],
        expect!["the plan of model `tiny` is invalid: kernel `double` has workgroups of [1048576, 1048576, 1]"],
    );
    check_plan(
        |p| p.kernels[0].code = Code::Wgsl { text: "no".to_owned(), spirv: None, msl: None },
        expect!["the plan of model `tiny` is invalid: kernel `double` needs `no`, which is not there"],
    );
    check_plan(
        |p| decode(p).inputs[0].buffer = 9,
        expect!["the plan of model `tiny` is invalid: function `decode`: port `x` has no buffer"],
    );
    check_plan(
        |p| decode(p).inputs[0].buffer = 2,
        expect!["the plan of model `tiny` is invalid: function `decode`: port `x` lies in buffer `y` of another kind"],
    );
    check_plan(
        |p| decode(p).outputs[0].rows = Some(3),
        expect!["the plan of model `tiny` is invalid: function `decode`: port `y` has 3 rows of 4 in 32 bytes"],
    );
    check_plan(
        |p| p.buffers[1].bytes = 16,
        expect!["the plan of model `tiny` is invalid: function `decode`: port `x` has 2 rows of 4 in 16 bytes"],
    );
    check_plan(
        |p| decode(p).outputs[0].rows = Some(0),
        expect!["the plan of model `tiny` is invalid: function `decode`: port `y` has 0 rows of 4 in 32 bytes"],
    );
    check_plan(
        |p| (decode(p).outputs[0].rows, decode(p).outputs[0].columns) = (Some(u32::MAX), u32::MAX),
        expect![
            "the plan of model `tiny` is invalid: function `decode`: port `y` has 4294967295 rows of 4294967295 in 32 bytes"
        ],
    );
    check_plan(
        |p| decode(p).steps[0].kernel = 1,
        expect!["the plan of model `tiny` is invalid: function `decode`: step 0 has no kernel"],
    );
    check_plan(
        |p| decode(p).steps[0].bindings.truncate(2),
        expect!["the plan of model `tiny` is invalid: function `decode`: step 0 binds 2 ranges, `double` needs 3"],
    );
    check_plan(
        |p| decode(p).steps[0].bindings[2].offset = u64::MAX - 3,
        expect![
            "the plan of model `tiny` is invalid: function `decode`: step 0 (`double`) binds 32 bytes at 18446744073709551612 of `y`"
        ],
    );
    check_plan(
        |p| decode(p).steps[0].bindings[2] = Binding { buffer: 0, offset: 0, bytes: 4 },
        expect![
            "the plan of model `tiny` is invalid: function `decode`: step 0 (`double`) binds `weights.0` as Read and as ReadWrite"
        ],
    );
    check_plan(
        |p| decode(p).steps[0].grid[0] = Extent::RowsPer(0),
        expect![
            "the plan of model `tiny` is invalid: function `decode`: step 0 has grid [RowsPer(0), Fixed(1), LengthPer(8)]"
        ],
    );
}

/// A manifest whose memory plan has one thing wrong, and what is said of it.
#[track_caller]
fn check_memory(change: impl FnOnce(&mut Manifest), expected: Expect) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.dwindle");
    let mut manifest = manifest(plan());
    change(&mut manifest);
    let mut writer = Writer::create(&path).unwrap();
    writer.entry("kernels/double.wgsl", |sink| sink.write(b"// text")).unwrap();
    writer.entry("weights.0", |sink| sink.write(&weights())).unwrap();
    writer.finish(manifest).unwrap();
    check_error(Bundle::open(&path), expected);
}

#[test]
fn memory_plans_are_checked() {
    check_memory(
        |m| m.models[0].memory.weights += 4,
        expect![
            "the bundle's memory plan is invalid: model `tiny` claims Memory { weights: 8196, states: 0, scratch: 0, ports: 64, activations: 0 }, its plan has Memory { weights: 8192, states: 0, scratch: 0, ports: 64, activations: 0 }; compile it again"
        ],
    );
    check_memory(
        |m| m.memory.peak -= 1,
        expect!["the bundle's memory plan is invalid: it says 9365 bytes, its parts add up to 9366; compile it again"],
    );
    check_memory(
        |m| m.memory.moments[0].work += 1,
        expect!["the bundle's memory plan is invalid: its moments are not the sums of their parts; compile it again"],
    );
    check_memory(
        |m| m.memory.moments.clear(),
        expect!["the bundle's memory plan is invalid: its moments are not the sums of their parts; compile it again"],
    );
    check_memory(
        |m| m.memory.estimates.models.clear(),
        expect!["the bundle's memory plan is invalid: 1 models have 0 estimates; compile it again"],
    );
    check_memory(
        |m| m.memory.estimates.process = u64::MAX,
        expect!["the bundle's memory plan is invalid: an estimate is 18446744073709551615 bytes; compile it again"],
    );
}

/// Two models whose figures tell them apart: what is there at each moment.
#[test]
fn moments_of_an_ensemble() {
    let memory = |weights| Memory { weights, states: 1000, scratch: 20, ports: 7, activations: 3 };
    let ensemble = |residency| Ensemble {
        describe: "seer".to_owned(),
        chat: "talker".to_owned(),
        describe_prompt: String::new(),
        handover: String::new(),
        residency,
    };
    let estimates = || Estimates {
        process: 5,
        staging: 0,
        models: vec![ModelEstimates { tokenizer: 40, picture: 0 }, ModelEstimates { tokenizer: 50, picture: 60 }],
    };
    let models = [("talker", memory(100_000)), ("seer", memory(200_000))];
    let text = [Residency::Both, Residency::Swap].map(|residency| {
        let plan = MemoryPlan::new(&models, Some(&ensemble(residency)), estimates());
        let line = |m: &Moment| {
            let (weights, states, work, total) = (m.weights, m.states, m.work, m.total());
            format!("{residency}, {}: {weights} + {states} + {work} + …= {total}\n", m.what)
        };
        plan.moments.iter().map(line).collect::<String>() + &format!("peak {}\n", plan.peak)
    });
    expect![[r#"
        both, seer describes a picture: 300000 + 2000 + 60 + …= 302215
        both, talker answers: 300000 + 2000 + 60 + …= 302215
        peak 302215
        swap, seer describes a picture: 200000 + 2000 + 30 + …= 202185
        swap, talker answers: 100000 + 1000 + 30 + …= 101185
        peak 202185
    "#]]
    .assert_eq(&text.concat());
    assert_eq!("swap".parse::<Residency>().unwrap(), Residency::Swap);
    expect!["unknown residency `half`: expected both or swap"]
        .assert_eq(&"half".parse::<Residency>().unwrap_err().to_string());
}

/// Resident bytes of the mappings of a file.
#[cfg(target_os = "linux")]
fn resident(path: &Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let name = path.to_str().unwrap();
    let after = maps.split_inclusive('\n').skip_while(|line| !line.trim_end().ends_with(name));
    let rss = after.filter_map(|line| line.strip_prefix("Rss:")).next().unwrap();
    rss.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() << 10
}

#[test]
#[cfg(target_os = "linux")]
fn released_entries_leave_memory_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.dwindle");
    let contents: Vec<u8> = (0..4 << 20).map(|i: u32| (i % 251) as u8).collect();
    let mut writer = Writer::create(&path).unwrap();
    writer.entry("large", |sink| sink.write(&contents)).unwrap();
    writer.entry("kernels/double.wgsl", |sink| sink.write(b"// text")).unwrap();
    writer.entry("weights.0", |sink| sink.write(&weights())).unwrap();
    writer.finish(manifest(plan())).unwrap();
    let bundle = Bundle::open(&path).unwrap();
    let shared = bundle.share("large").unwrap();
    assert!(resident(&path) >= 4 << 20);
    shared.release();
    assert!(resident(&path) < 1 << 20, "{} bytes stay", resident(&path));
    assert!(*shared == contents[..] && resident(&path) >= 4 << 20);
    shared.release();
    bundle.stream("large", 1 << 16, |_, _| Ok::<(), Error>(())).unwrap();
    assert!(resident(&path) < 1 << 20, "what is streamed does not stay");
}

#[test]
fn extents() {
    let call = Call { rows: 5, position: 12, tile: 0 };
    let cases = [(Extent::Fixed(3), 3), (Extent::RowsPer(4), 2), (Extent::RowsPer(5), 1), (Extent::LengthPer(8), 3)];
    for (extent, expected) in cases {
        assert_eq!(extent.at(call), expected, "{extent:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any change of a byte either is found, or touched bytes that mean nothing (padding, attributes).
    #[test]
    fn flipped_bytes_never_change_what_is_read(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = written(plan());
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(bundle) = open(&bytes) {
            prop_assert_eq!(bundle.entry("weights.0").unwrap(), weights());
            let mut read = bundle.manifest().clone();
            read.entries.clear();
            prop_assert_eq!(read, manifest(plan()));
        }
    }

    #[test]
    fn noise_is_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..600), zip in any::<bool>()) {
        if zip {
            bytes.splice(0..0, *b"PK\x03\x04");
        }
        prop_assert!(open(&bytes).is_err());
    }
}

/// A bundle for two targets; the second one's plan has a kernel less and shares the weights.
fn for_two(change: impl FnOnce(&mut Manifest)) -> Result<Bundle, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.dwindle");
    let mut writer = Writer::create(&path)?;
    writer.entry("kernels/double.wgsl", |sink| sink.write(b"// text"))?;
    writer.entry("weights.0", |sink| sink.write(&weights()))?;
    let mut manifest = manifest(plan());
    let other = Plan { max_rows: 1, kernels: Vec::new(), functions: Default::default(), ..plan() };
    manifest.also.push(Variant {
        target: Target { name: "cpu".to_owned(), needs: Default::default(), features: Vec::new() },
        memory: MemoryPlan::new(&[("tiny", other.memory())], None, manifest.memory.estimates.clone()),
        models: vec![VariantModel { memory: other.memory(), plan: other }],
    });
    change(&mut manifest);
    writer.finish(manifest)?;
    open(&std::fs::read(path).unwrap())
}

#[test]
fn each_target_sees_its_own_plans() {
    let bundle = for_two(|_| ()).unwrap();
    let names = |bundle: &Bundle| bundle.manifest().targets().map(|t| t.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&bundle), ["vulkan", "cpu"]);
    assert_eq!(bundle.manifest().models[0].plan, plan());
    let cpu = bundle.select("cpu").unwrap();
    assert_eq!(names(&cpu), ["cpu", "vulkan"]);
    assert_eq!(cpu.manifest().models[0].plan.max_rows, 1);
    assert_eq!(cpu.manifest().models[0].name, "tiny");
    assert_eq!(cpu.entry("weights.0").unwrap(), weights());
    assert_eq!(cpu.select("vulkan").unwrap().manifest(), bundle.manifest(), "there and back");
    assert_eq!(bundle.select("vulkan").unwrap().manifest(), bundle.manifest());
    let all = ["kernels/double.wgsl", "weights.0"];
    assert_eq!(bundle.manifest().used_entries(), all.into());
    assert_eq!(cpu.manifest().used_entries(), ["weights.0"].into());
    check_error(
        bundle.select("metal"),
        expect![
            "the bundle is compiled for vulkan and cpu, not for metal: compile its models again with `--target vulkan,cpu,metal`"
        ],
    );
    check_error(
        open(&written(plan())).unwrap().select("cpu"),
        expect!["the bundle is compiled for vulkan, not for cpu: compile its models again with `--target vulkan,cpu`"],
    );
}

#[test]
fn further_targets_are_checked_too() {
    let check = |change: fn(&mut Manifest), expected: Expect| check_error(for_two(change), expected);
    check(
        |m| m.also[0].target.name = "vulkan".to_owned(),
        expect!["the bundle's manifest is invalid: target `vulkan` is there twice"],
    );
    check(
        |m| m.also[0].models.clear(),
        expect!["the bundle's manifest is invalid: target `cpu` has plans for 0 models of 1"],
    );
    check(
        |m| m.also.extend(vec![m.also[0].clone(); 9]),
        expect!["the bundle's manifest is invalid: it has plans for 11 targets"],
    );
    check(|m| m.also[0].models[0].plan.max_rows = 0, expect!["the plan of model `tiny` is invalid: max_rows is 0"]);
    check(
        |m| m.also[0].models[0].plan.buffers[0].bytes = 8196,
        expect!["the plan of model `tiny` is invalid: buffer `weights.0` has 8196 bytes, its entry 8192"],
    );
    check(
        |m| m.also[0].models[0].memory.states += 4,
        expect![
            "the bundle's memory plan is invalid: model `tiny` claims Memory { weights: 8192, states: 4, scratch: 0, ports: 64, activations: 0 }, its plan has Memory { weights: 8192, states: 0, scratch: 0, ports: 64, activations: 0 }; compile it again"
        ],
    );
    check(
        |m| m.also[0].memory.peak += 1,
        expect!["the bundle's memory plan is invalid: it says 9367 bytes, its parts add up to 9366; compile it again"],
    );
}

/// What the fuzz target `bundles` begins with; if the format changes, the seed has to.
#[test]
fn the_seed_of_the_fuzz_target_opens() {
    let seed: Manifest = serde_json::from_slice(include_bytes!("../../../fuzz/corpus/bundles/manifest")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.dwindle");
    let mut writer = Writer::create(&path).unwrap();
    writer.entry("weights.0", |sink| sink.write(&[0x11; 8192])).unwrap();
    assert_eq!(writer.finish(seed.clone()).unwrap(), seed);
    Bundle::open(&path).unwrap().verify().unwrap();
}
