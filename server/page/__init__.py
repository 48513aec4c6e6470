"""The page at `/` and the page about the API.

routes.py    the page's routes and headers
api_docs.py  `/docs`
static/      HTML, style sheets and modules of the page, served without a build
"""
