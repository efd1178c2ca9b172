"use strict";

// A key is entered with "Authorize" and kept in this page's memory only.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  tryItOutEnabled: true,
  // No other host is told of this server or its document.
  validatorUrl: null,
  // Parameters of the address bar could otherwise point the page, and a key entered there, at another document.
  queryConfigEnabled: false,
});
