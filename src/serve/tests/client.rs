//! A client that sees every byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// A connection.
pub struct Client {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
    host: String,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Client { stream, reader, host: address.to_string() }
    }

    /// Sends a request and reads the whole answer.
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.send(method, path, headers, body);
        // The length is that of the body that a GET would get.
        if method == "HEAD" { self.head() } else { self.reply() }
    }

    /// Sends a request.
    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("Host: {}\r\n", self.host);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        let _ = self.stream.write_all(&[head.as_bytes(), body].concat());
    }

    /// Reads status and headers.
    pub fn head(&mut self) -> Reply {
        let mut line = || {
            let mut line = String::new();
            self.reader.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let status = line();
        let status = status.split(' ').nth(1).unwrap_or_else(|| panic!("no status in {status:?}")).parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = line();
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Reply { status, headers, body: Vec::new() }
    }

    /// Reads a whole answer.
    pub fn reply(&mut self) -> Reply {
        let mut reply = self.head();
        if let Some(length) = reply.header("content-length") {
            reply.body = vec![0; length.parse().unwrap()];
            self.reader.read_exact(&mut reply.body).unwrap();
        } else if reply.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk() {
                reply.body.extend(chunk);
            }
        }
        reply
    }

    /// Reads a chunk of a stream; `None` at its end.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        let length = usize::from_str_radix(line.trim(), 16).unwrap_or_else(|_| panic!("no chunk in {line:?}"));
        let mut chunk = vec![0; length + 2];
        self.reader.read_exact(&mut chunk).unwrap();
        chunk.truncate(length);
        (length > 0).then_some(chunk)
    }

    /// Whether the other end closed the connection.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.reader.read(&mut [0]), Ok(0) | Err(_))
    }
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// OpenAI's error: status, code, field, message.
    #[track_caller]
    pub fn error(&self) -> (u16, String, String, String) {
        let value = self.json();
        let error = value["error"].as_object().unwrap_or_else(|| panic!("no error in {value}"));
        // All four are always there.
        assert!(["message", "type", "param", "code"].iter().all(|name| error.contains_key(*name)), "{value}");
        assert!(error["type"].is_string());
        let text = |name: &str| error[name].as_str().unwrap_or("").to_owned();
        (self.status, text("code"), text("param"), text("message"))
    }

    /// The events of a stream: comments' JSON, and data.
    pub fn events(&self) -> (Vec<Value>, Vec<Value>) {
        let (mut progress, mut data) = (Vec::new(), Vec::new());
        let text = self.text();
        assert!(text.ends_with("\n\n"), "{text:?}");
        for event in text.split_terminator("\n\n") {
            if let Some(comment) = event.strip_prefix(": dwindle ") {
                progress.push(serde_json::from_str(comment).unwrap());
            } else if event == "data: [DONE]" {
                data.push(Value::from("[DONE]"));
            } else {
                let line = event.lines().last().unwrap();
                let line =
                    line.strip_prefix("data: ").unwrap_or_else(|| panic!("neither data nor progress: {event:?}"));
                data.push(serde_json::from_str(line).unwrap());
            }
        }
        (progress, data)
    }
}
