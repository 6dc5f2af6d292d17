// Which address shows which page.
import { createRootRoute, createRoute, createRouter } from "@tanstack/react-router";
import { JobPage } from "./job/JobPage";
import { tabFrom, type Tab } from "./job/tabs";
import { JobsPage } from "./jobs/JobsPage";
import { NotFound } from "./shell/NotFound";
import { Shell } from "./shell/Shell";
import { ErrorView } from "./ui/ErrorView";

const rootRoute = createRootRoute({
  component: Shell,
  notFoundComponent: NotFound,
  errorComponent: ({ error, reset }) => <ErrorView error={error} retry={reset} />,
});

const jobsRoute = createRoute({ getParentRoute: () => rootRoute, path: "/", component: JobsPage });

const jobRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/jobs/$id",
  validateSearch: (search: Record<string, unknown>): { tab?: Tab } => {
    const tab = tabFrom(search.tab);
    return tab === undefined ? {} : { tab };
  },
  component: function JobRoute() {
    const { id } = jobRoute.useParams();
    const { tab = "overview" } = jobRoute.useSearch();
    return <JobPage key={id} id={id} tab={tab} />;
  },
});

export const router = createRouter({
  routeTree: rootRoute.addChildren([jobsRoute, jobRoute]),
  scrollRestoration: true,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
