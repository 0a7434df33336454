//! A report of `bench` for people.

use serde_json::Value;

/// What was measured, line by line.
pub fn of(report: &Value) -> String {
    let mut text = format!("{} on {}", report["model"].as_str().unwrap_or(""), report["device"].as_str().unwrap_or(""));
    for prefill in report["prefill"].as_array().into_iter().flatten() {
        text += &format!("\n  prefill {:>5} {}", prefill["tokens"].to_string(), rate(&prefill["tokens_per_second"]));
    }
    let decode = &report["decode"];
    text += &format!("\n  decode  {:>5} {}", decode["tokens"].to_string(), rate(&decode["tokens_per_second"]));
    let (bytes, dispatches) = (mib(&decode["bytes_per_token"]), &decode["dispatches_per_token"]);
    text += &format!("\n  {bytes} of weights a token, {dispatches} dispatches");
    if let (Some(share), Some(bandwidth)) =
        (report["bandwidth_share"].as_f64(), report["bandwidth_bytes_per_second"].as_f64())
    {
        text += &format!("\n  {:.0} % of the {:.1} GB/s that this machine reads", share * 100.0, bandwidth / 1e9);
    }
    let image = &report["image"];
    if !image.is_null() {
        let (tile, turn) = (seconds(&image["seconds_per_tile"]), seconds(&image["turn_seconds"]));
        text += &format!("\n  picture: {tile} each of {} tiles", image["tiles"]);
        text += &format!("\n           {turn} to the first token, {} positions", image["rows"]);
    }
    let (load, first) = (report["load_seconds"].as_f64(), report["first_token_seconds"].as_f64());
    text += &format!("\n  load {:.2} s, first token after {:.2} s", load.unwrap_or(0.0), first.unwrap_or(0.0));
    let [device, peak, anonymous] = ["device_bytes", "peak_bytes", "anonymous_bytes"].map(|key| mib(&report[key]));
    text + &format!("\n  device memory {device}, process peak {peak}, anonymous {anonymous}")
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or(0.0)
}

fn rate(value: &Value) -> String {
    let [min, median, max] = ["min", "median", "max"].map(|key| number(value, key));
    format!("{median:8.1} tokens/s   ({min:.1} – {max:.1})")
}

fn seconds(value: &Value) -> String {
    let [min, median, max] = ["min", "median", "max"].map(|key| number(value, key));
    format!("{median:.2} s ({min:.2} – {max:.2})")
}

fn mib(value: &Value) -> String {
    value.as_u64().map_or("unknown".to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / 1048576.0))
}
