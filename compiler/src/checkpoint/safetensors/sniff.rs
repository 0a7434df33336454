//! What a file that should be safetensors is instead, by its first bytes.

/// Beginning of a file, what it is then, and what to do.
const SIGNATURES: [(&[u8], &str, &str); 13] = [
    (b"GGUF", "a GGUF file (llama.cpp)", "; name it .gguf to convert it as such"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image", ""),
    (b"\xff\xd8\xff", "a JPEG image", ""),
    (b"RIFF", "a RIFF file (WebP, WAV)", ""),
    (b"%PDF-", "a PDF document", ""),
    (
        b"PK\x03\x04",
        "a ZIP archive (PyTorch's .bin and .pt are ZIPs)",
        "; save it with `save_pretrained(dir, safe_serialization=True)`",
    ),
    (
        b"\x80\x02",
        "a Python pickle (PyTorch's old format)",
        "; save it with `save_pretrained(dir, safe_serialization=True)`",
    ),
    (b"\x1f\x8b", "a gzip archive", "; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "; unpack it first"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (TensorFlow)", "; download the safetensors files of the checkpoint"),
    (
        b"version https://git-lfs",
        "a git-lfs pointer, not the file itself",
        "; run `git lfs pull` in the checkpoint's directory",
    ),
    (b"<", "an HTML or XML page", "; the download failed, perhaps for lack of a login"),
    (b"{", "JSON without the 8 bytes of length before it", ""),
];

/// What `file` looks like, with a hint; `None` where its beginning may be that of a safetensors file.
///
/// Call it after the header was refused: the first 8 bytes of a valid file are a number and may be anything small.
pub fn sniff(file: &[u8]) -> Option<(&'static str, &'static str)> {
    if file.is_empty() {
        return Some(("an empty file", "; download it again"));
    }
    SIGNATURES.iter().find(|(magic, ..)| file.starts_with(magic)).map(|&(_, what, hint)| (what, hint))
}
