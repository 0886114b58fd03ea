// An authorization server over TLS on loopback, the package oidc-provider: node oidc_provider.mjs SETTINGS
// SETTINGS is a JSON file: port, certificate (PEM with its key), client_ca (PEM) and clients (their metadata, RFC 7591).
import { X509Certificate, generateKeyPairSync } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import Provider from "oidc-provider";

// The package counts on it, and node 20 has none.
URL.parse ??= (text) => (URL.canParse(text) ? new URL(text) : null);

const settings = JSON.parse(readFileSync(process.argv[2], "utf8"));
const certificateOf = (ctx) => {
  const { raw } = ctx.socket.getPeerCertificate();
  return raw === undefined ? undefined : new X509Certificate(raw);
};

const provider = new Provider(`https://127.0.0.1:${settings.port}`, {
  clients: settings.clients,
  jwks: { keys: [generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ format: "jwk" })] },
  scopes: ["llm"],
  responseTypes: [],
  clientAuthMethods: ["client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth"],
  enabledJWA: { clientAuthSigningAlgValues: ["RS256", "PS256", "ES256", "ES384", "ES512"] },
  ttl: { ClientCredentials: 300 },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true, allowedPolicy: () => true },
    mTLS: {
      enabled: true,
      tlsClientAuth: true,
      certificateBoundAccessTokens: true,
      getCertificate: certificateOf,
      certificateAuthorized: (ctx) => ctx.socket.authorized,
      certificateSubjectMatches: (ctx, property, expected) =>
        property === "tls_client_auth_subject_dn" && certificateOf(ctx).subject === expected,
    },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: () => ({
        scope: "llm", accessTokenFormat: "jwt", accessTokenTTL: 300, jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
});

const pem = readFileSync(settings.certificate);
createServer(
  { cert: pem, key: pem, ca: readFileSync(settings.client_ca), requestCert: true, rejectUnauthorized: false },
  provider.callback(),
).listen(settings.port, "127.0.0.1");
