// node's http2 as a server: a folder, with prior knowledge or, given a certificate, TLS.
'use strict';
const fs = require('fs');
const http2 = require('http2');
const path = require('path');

const [port, root, cert, key] = process.argv.slice(2);
const server = cert
  ? http2.createSecureServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) })
  : http2.createServer();

server.on('stream', (stream, headers) => {
  stream.on('error', () => {}); // a client that leaves is no failure
  const name = path.join(root, path.normalize(headers[':path']));
  if (!['GET', 'HEAD'].includes(headers[':method'])) {
    stream.respond({ ':status': 405 }, { endStream: true });
  } else {
    stream.respondWithFile(name, {}, {
      onError: () => {
        if (!stream.closed && !stream.destroyed) { // else the client has left meanwhile
          stream.respond({ ':status': 404 }, { endStream: true });
        }
      },
    });
  }
});
server.listen(Number(port), '127.0.0.1');
