/* The dashboard: one page with its script and style, held by the binary. */
#ifndef SERVER_PAGE_H
#define SERVER_PAGE_H

#include "server/routes/api.h"

/* GET /: the page for browsers, and what KServe's liveness probe expects for everybody else. */
api_handler page_root;

/* GET /ui/...: what the page loads. */
api_handler page_asset;

#endif
