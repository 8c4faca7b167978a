//! A scripted server, and what is made of its answers.

use super::*;

/// A server that has already said everything, a few bytes a read.
struct Scripted {
    answer: Vec<u8>,
    at: usize,
    asked: Vec<u8>,
}

impl Read for Scripted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = into.len().min(3).min(self.answer.len() - self.at);
        into[..n].copy_from_slice(&self.answer[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

impl Write for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.asked.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn fetch(answer: &str) -> Result<String, HttpError> {
    let server = Scripted {
        answer: answer.as_bytes().to_vec(),
        at: 0,
        asked: Vec::new(),
    };
    let mut body = Vec::new();
    let url = Url::parse("http://10.0.0.1/x").unwrap();
    let response = get(server, &url)?;
    let count = response.body(|piece| {
        body.extend(piece);
        Ok(())
    })?;
    assert_eq!(count, body.len() as u64);
    Ok(String::from_utf8(body).unwrap())
}

#[test]
fn urls_are_taken_apart() {
    let parsed = |url| {
        let url = Url::parse(url).unwrap();
        (url.authority(), url.path)
    };
    let is = |authority: &str, path: &str| (authority.to_owned(), path.to_owned());
    assert_eq!(parsed("http://10.0.0.1"), is("10.0.0.1", "/"));
    assert_eq!(parsed("10.0.0.1:8080/a?b#c"), is("10.0.0.1:8080", "/a?b"));
    assert_eq!(parsed("HTTP://h?q"), is("h", "/?q"));
    assert_eq!(parsed("http://[fd00::1]:81/x"), is("[fd00::1]:81", "/x"));
    for bad in [
        "https://h/",
        "ftp://h/",
        "http://",
        "http://h:99999/",
        "http://[::1/",
        "http://h/a b",
    ] {
        assert!(Url::parse(bad).is_err(), "{bad}");
    }
    let text = Url::parse("https://h/").unwrap_err().to_string();
    assert!(text.contains("https is not there yet"), "{text}");
}

#[test]
fn bodies_end_as_the_head_says() {
    let ok = "HTTP/1.1 200 OK\r\n";
    assert_eq!(
        fetch(&format!("{ok}Content-Length: 5\r\n\r\nhellorest")).unwrap(),
        "hello"
    );
    assert_eq!(
        fetch(&format!("{ok}\r\nuntil close")).unwrap(),
        "until close"
    );
    let chunks = "5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nT: 1\r\n\r\n";
    let chunked = format!("{ok}transfer-encoding: chunked\r\n\r\n{chunks}");
    assert_eq!(fetch(&chunked).unwrap(), "hello world");
    assert_eq!(fetch("HTTP/1.1 204 No Content\r\n\r\n").unwrap(), "");
    let interim = format!("HTTP/1.1 100 Continue\r\n\r\n{ok}Content-Length: 1\r\n\r\nx");
    assert_eq!(fetch(&interim).unwrap(), "x");
}

#[test]
fn what_is_wrong_is_said() {
    let said = |answer: &str| fetch(answer).unwrap_err().to_string();
    let short = said("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello");
    assert_eq!(short, "the connection closed after 5 of 9 bytes");
    let moved = said("HTTP/1.1 301 Moved Permanently\r\nLocation: http://b/\r\n\r\n");
    assert_eq!(
        moved,
        "the server says 301 Moved Permanently (it moved to http://b/)"
    );
    assert!(said("SSH-2.0-x\r\n").contains("no status line"));
    assert!(said("").contains("ends"));
    let cut = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhe";
    assert!(said(cut).contains("closed after 2 of 5"));
    assert!(said("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n").contains("no number"));
}
